//! A file system without files, served by a task: a device of a type that the conformance suite does
//! not know (VIRTIO 1.2, 5.11), put through its checks with requests of its own.
//!
//! Run it on the host: `cargo run -p vdpa-vduse --example no_files`.

#[path = "../common/machine.rs"]
mod machine;

use std::error::Error;

use vdpa::Features;
use vdpa::conformance::{Request, Service};
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Options, Task, TaskDevice, TaskError, Turn};

use machine::{Checked, Machine, Requests};

const NAME: &str = "no-files";
/// The first request queue; queue 0 is for urgent ones.
const REQUESTS: u16 = 1;
const QUEUES: u16 = 2;
/// The configuration space: a tag of 36 bytes, the number of request queues, and the size of a
/// notification (VIRTIO 1.2, 5.11.4).
const CONFIG_SIZE: usize = 44;
/// `fuse_in_header`, and where the number of the request is in it.
const IN_HEADER: usize = 40;
const UNIQUE: usize = 8;
/// `fuse_out_header`: the length, the error and the number of the request.
const OUT_HEADER: usize = 16;
/// "Function not implemented".
const ENOSYS: i32 = 38;
const FUSE_STATFS: u32 = 17;

/// Knows no function of a file system.
struct NoFiles;

impl TaskDevice for NoFiles {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        for queue in 0..QUEUES {
            while let Some(job) = task.take(queue)? {
                let mut header = [0; IN_HEADER];
                task.read(job, 0, &mut header)?;
                // FUSE_FORGET wants no answer, and has no room for one.
                if job.writable() >= OUT_HEADER as u64 {
                    task.write(job, 0, &refusal(&header[UNIQUE..][..8]))?;
                }
                task.complete(job)?;
            }
            task.flush(queue)?;
        }
        Ok(Turn::Idle)
    }
}

fn refusal(unique: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((OUT_HEADER as u32).to_le_bytes());
    bytes.extend((-ENOSYS).to_le_bytes());
    bytes.extend(unique);
    bytes
}

fn config() -> DeviceConfig {
    let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM | virtio::F::RING_PACKED;
    let mut space = vec![0; CONFIG_SIZE];
    space[..NAME.len()].copy_from_slice(NAME.as_bytes());
    space[36] = 1;
    DeviceConfig {
        name: NAME.into(),
        vendor_id: 0,
        device_id: u8::from(virtio::Id::Fs).into(),
        features: Features::from(base).bits() as u64,
        queues: QUEUES.into(),
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: space,
    }
}

/// A question that is answered with a header and numbers, but with a header alone by this device.
fn request(number: u8) -> Request {
    let mut bytes = vec![0; IN_HEADER];
    bytes[..4].copy_from_slice(&(IN_HEADER as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&FUSE_STATFS.to_le_bytes());
    bytes[UNIQUE] = number;
    Request {
        queue: REQUESTS,
        bytes,
        room: 96,
        used: OUT_HEADER..=OUT_HEADER,
    }
}

fn judge(number: u8, answer: &[u8]) -> Result<(), String> {
    if answer == refusal(&u64::from(number).to_le_bytes()) {
        Ok(())
    } else {
        Err(format!("{answer:x?} is no refusal"))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(Checked {
        name: NAME,
        device_type: virtio::Id::Fs,
        service: Service::Requests,
        requests: Some(Requests { request, judge }),
    });
    let control = &machine.control;
    control.create(&config(), Options::default())?;
    let task = control.open(NAME)?;
    for index in 0..QUEUES.into() {
        task.set_up_queue(QueueSetup {
            index,
            size_max: 64,
            group: 0,
        })?;
    }
    machine.spawn(task, NoFiles);
    machine.check()
}
