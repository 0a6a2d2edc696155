//! The two ways to configuration space.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pci::{ConfigAccess, ConfigPorts, ConfigSpace, Ecam, EcamRegion, PortConfig};
use pci_types::PciAddress;
use spin::Mutex;
use vdpa::platform::{Mmio, PhysAddr};
use vdpa::testing::FakePlatform;
use virtq::{Doorbell, NotifyFormat};

/// Ports behind which every register holds the index that names it.
#[derive(Debug, Default)]
struct EchoPorts {
    index: AtomicU32,
    written: Arc<Mutex<Vec<(u32, u32)>>>,
}

impl ConfigPorts for EchoPorts {
    fn select(&self, index: u32) {
        self.index.store(index, Ordering::SeqCst);
        std::thread::yield_now();
    }

    fn read(&self) -> u32 {
        self.index.load(Ordering::SeqCst)
    }

    fn write(&self, value: u32) {
        self.written
            .lock()
            .push((self.index.load(Ordering::SeqCst), value));
    }

    fn write16(&self, half: u16, value: u16) {
        let index = self.index.load(Ordering::SeqCst);
        self.written
            .lock()
            .push((index | u32::from(half), u32::from(value)));
    }
}

fn config(access: &Arc<dyn ConfigAccess>, address: (u8, u8, u8)) -> ConfigSpace {
    let (bus, device, function) = address;
    ConfigSpace::new(
        Arc::clone(access),
        PciAddress::new(access.segment(), bus, device, function),
    )
}

#[test]
fn ports_name_bus_device_function_and_register() {
    let ports = EchoPorts::default();
    let written = Arc::clone(&ports.written);
    let access: Arc<dyn ConfigAccess> = Arc::new(PortConfig::new(ports));
    let config = config(&access, (0x12, 0x1f, 7));
    assert_eq!(config.read32(0x34), 0x8012_ff34);
    // SAFETY: there is no function.
    unsafe { access.write(config.address(), 0x10, 0xdead_beef) };
    assert_eq!(*written.lock(), [(0x8012_ff10, 0xdead_beef)]);
}

#[test]
fn ports_reach_256_bytes() {
    let access: Arc<dyn ConfigAccess> = Arc::new(PortConfig::new(EchoPorts::default()));
    let config = config(&access, (0, 3, 0));
    assert_eq!(config.size(), 256);
    assert_eq!(config.read32(0xfc), 0x8000_18fc);
    assert_eq!(config.read32(0x100), u32::MAX);
}

#[test]
fn index_and_data_of_two_tasks_do_not_mix() {
    let access: Arc<dyn ConfigAccess> = Arc::new(PortConfig::new(EchoPorts::default()));
    std::thread::scope(|scope| {
        for device in 0..4_u8 {
            let config = config(&access, (0, device, 0));
            scope.spawn(move || {
                let expected = 0x8000_0000 | (u32::from(device) << 11);
                assert!((0..500).all(|_| config.read32(0) == expected));
            });
        }
    });
}

/// Memory in which every word holds its own offset.
#[derive(Debug)]
struct EchoMemory;

// SAFETY: there are no registers.
unsafe impl Mmio for EchoMemory {
    fn len(&self) -> u64 {
        4 << 20
    }

    fn read8(&self, _: u64) -> u8 {
        panic!("configuration space is read in words")
    }

    fn read16(&self, _: u64) -> u16 {
        panic!("configuration space is read in words")
    }

    fn read32(&self, offset: u64) -> u32 {
        u32::try_from(offset).expect("small")
    }

    unsafe fn write8(&self, _: u64, _: u8) {}

    unsafe fn write16(&self, _: u64, _: u16) {}

    unsafe fn write32(&self, _: u64, _: u32) {}

    unsafe fn doorbell(&self, _: u64, _: u16, _: NotifyFormat) -> Option<Doorbell> {
        None
    }
}

/// A region whose base is that of bus 0 although it starts with bus 1.
fn ecam() -> Arc<dyn ConfigAccess> {
    let platform = FakePlatform::new();
    platform.add_mmio(PhysAddr(0xb000_0000), Arc::new(EchoMemory));
    let region = EcamRegion {
        base: PhysAddr(0xb000_0000),
        segment: 2,
        buses: 1..=8,
    };
    // SAFETY: the platform is a fake.
    Arc::new(unsafe { Ecam::new(platform, region) })
}

#[test]
fn ecam_reaches_extended_configuration_space() {
    let config = config(&ecam(), (2, 3, 4));
    assert_eq!(config.size(), 4096);
    assert_eq!(
        config.read32(0xffc),
        (2 << 20) | (3 << 15) | (4 << 12) | 0xffc
    );
    assert_eq!(config.read32(0x1000), u32::MAX);
}

#[test]
fn a_bus_outside_the_region_or_unmapped_is_empty() {
    assert!(!config(&ecam(), (0, 3, 0)).is_present());
    assert!(!config(&ecam(), (9, 3, 0)).is_present());
    assert_eq!(config(&ecam(), (8, 0, 0)).read32(0), u32::MAX);
}
