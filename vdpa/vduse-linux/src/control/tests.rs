use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use super::*;

/// A kernel that answers one thing, and keeps what it was asked.
#[derive(Debug)]
struct Kernel {
    newest: u64,
    answer: Result<(), Errno>,
    asked: Mutex<Vec<(u32, Vec<u8>)>>,
}

impl Calls for Kernel {
    fn call(&self, _file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<()> {
        match number {
            ioctl::GET_API_VERSION => argument.copy_from_slice(&self.newest.to_ne_bytes()),
            ioctl::SET_API_VERSION => {}
            _ => self.answer?,
        }
        self.asked.lock().unwrap().push((number, argument.to_vec()));
        Ok(())
    }

    fn open(&self, _file: BorrowedFd<'_>, _: u32, _: &mut [u8]) -> io::Result<OwnedFd> {
        Err(Errno::NOTTY.into())
    }
}

fn control(newest: u64, answer: Result<(), Errno>) -> (Control, Arc<Kernel>) {
    let kernel = Arc::new(Kernel {
        newest,
        answer,
        asked: Mutex::default(),
    });
    let file = File::open("/dev/null").unwrap().into();
    let control = Control::with(file, Arc::clone(&kernel) as _).unwrap();
    (control, kernel)
}

fn disk() -> DeviceConfig {
    DeviceConfig {
        name: "disk".into(),
        vendor_id: 0,
        device_id: 2,
        features: 3 << 32,
        queues: 1,
        queue_align: 4096,
        groups: 1,
        address_spaces: 1,
        config: vec![0; 60],
    }
}

#[test]
fn version_is_the_newest_that_both_know() {
    for (newest, version, set) in [
        (0, ApiVersion::V0, 0_u64),
        (1, ApiVersion::V1, 1),
        (7, ApiVersion::V1, 1),
    ] {
        let (control, kernel) = control(newest, Ok(()));
        assert_eq!(control.version(), version);
        let asked = kernel.asked.lock().unwrap();
        let last = asked.last().unwrap();
        assert_eq!(*last, (ioctl::SET_API_VERSION, set.to_ne_bytes().to_vec()));
    }
}

#[test]
fn device_that_is_there_is_taken_over() {
    assert_eq!(control(0, Ok(())).0.create(&disk()).unwrap(), Created::New);
    let (there, _) = control(0, Err(Errno::EXIST));
    assert_eq!(there.create(&disk()).unwrap(), Created::Existing);
    let (refusing, _) = control(0, Err(Errno::PERM));
    assert!(matches!(refusing.create(&disk()), Err(Error::Call { .. })));
}

#[test]
fn device_that_the_kernel_would_refuse_is_not_asked_for() {
    let (control, kernel) = control(0, Ok(()));
    let without_translation = DeviceConfig {
        features: 1 << 32,
        ..disk()
    };
    let refused = control.create(&without_translation);
    assert!(matches!(refused, Err(Error::Config(_))));
    assert_eq!(kernel.asked.lock().unwrap().len(), 2);
}

#[test]
fn destroying_says_what_is_in_the_way() {
    let destroy = |answer| control(0, answer).0.destroy("disk");
    assert!(destroy(Ok(())).is_ok());
    assert!(matches!(destroy(Err(Errno::BUSY)), Err(Error::InUse)));
    assert!(matches!(destroy(Err(Errno::INVAL)), Err(Error::NoDevice)));
    let long = "n".repeat(NAME_LEN);
    for name in ["", "a\0b", &long] {
        let (control, kernel) = control(0, Ok(()));
        assert!(matches!(control.destroy(name), Err(Error::NoDevice)));
        assert_eq!(kernel.asked.lock().unwrap().len(), 2, "{name:?}");
    }
}
