//! What is driven, and what is refused with which word.

use std::sync::Arc;

use vdpa::device::VdpaBus;
use vdpa::platform::PhysAddr;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform, VdpaOps};
use virtio_mmio::{Description, Parent, ProbeError, VirtioMmio};

use super::device::{BASE, FakeDevice, Plan, Reset, description};

fn probe(plan: Plan) -> Result<Parent, ProbeError> {
    let platform = FakePlatform::new();
    let device = FakeDevice::new(&platform, plan);
    let services: Arc<dyn Platform> = Arc::clone(&platform) as _;
    let place = description();
    // SAFETY: the device is there.
    let found = platform.block_on(unsafe { Parent::probe(&place, &services) });
    assert_eq!(device.violations(), Vec::<String>::new());
    found
}

#[test]
fn a_device_is_what_its_registers_say() {
    let parent = probe(Plan::default()).unwrap();
    assert_eq!((parent.device_id(), parent.vendor_id()), (1, 0x554d_4551));
    assert_eq!((parent.queue_count(), parent.queue_size_max(1)), (2, 256));
    assert_eq!(parent.config_size(), 0x100);
}

#[test]
fn what_is_no_device_is_told_apart() {
    let plan = Plan::default;
    for (plan, wanted) in [
        (Plan { magic: 0, ..plan() }, ProbeError::Magic),
        (
            Plan {
                magic: u32::MAX,
                ..plan()
            },
            ProbeError::Magic,
        ),
        (
            Plan {
                version: 1,
                ..plan()
            },
            ProbeError::Legacy,
        ),
        (
            Plan {
                version: 3,
                ..plan()
            },
            ProbeError::Version(3),
        ),
        (
            Plan {
                device_id: 0,
                ..plan()
            },
            ProbeError::Empty,
        ),
        (
            Plan {
                device_id: 0,
                version: 1,
                ..plan()
            },
            ProbeError::Empty,
        ),
        (
            Plan {
                features: 0,
                ..plan()
            },
            ProbeError::NoVersion1,
        ),
        (
            Plan {
                queues: vec![],
                ..plan()
            },
            ProbeError::NoQueue,
        ),
        (
            Plan {
                queues: vec![0],
                ..plan()
            },
            ProbeError::NoQueue,
        ),
    ] {
        assert_eq!(probe(plan).map(drop), Err(wanted));
    }
}

#[test]
fn odd_queues_do_no_harm() {
    let sizes = vec![u32::MAX - 1, 1, 3, 0x1_0000, 7];
    let parent = probe(Plan {
        queues: sizes,
        ..Plan::default()
    })
    .unwrap();
    let sizes: Vec<u16> = (0..6).map(|queue| parent.queue_size_max(queue)).collect();
    assert_eq!(sizes, [0x8000, 1, 3, 0x8000, 7, 0]);
    let parent = probe(Plan {
        queues: vec![1; 5000],
        ..Plan::default()
    })
    .unwrap();
    assert_eq!(parent.queue_count(), 1024);
}

#[test]
fn too_few_registers_are_none() {
    let platform = FakePlatform::new();
    FakeDevice::new(&platform, Plan::default());
    let services: Arc<dyn Platform> = Arc::clone(&platform) as _;
    for (base, size) in [(BASE, 0xff), (BASE, 1), (BASE, 1 << 40), (0x1000, 0x200)] {
        let place = Description {
            base: PhysAddr(base),
            size,
            ..description()
        };
        // SAFETY: the device is there, or nothing.
        let found = platform.block_on(unsafe { Parent::probe(&place, &services) });
        assert_eq!(
            found.map(drop),
            Err(ProbeError::Registers),
            "{base:#x}, {size:#x}"
        );
    }
}

#[test]
fn one_that_firmware_left_running_must_reset_itself() {
    let running = Plan {
        status: 0xf,
        ..Plan::default()
    };
    assert!(probe(running.clone()).is_ok());
    for reset in [Reset::BeforeDriverOk, Reset::Never] {
        let plan = Plan {
            reset,
            ..running.clone()
        };
        let error = ProbeError::Device(vdpa::ops::OpError::Timeout);
        assert_eq!(probe(plan).map(drop), Err(error));
    }
}

#[test]
fn a_device_that_is_described_twice_is_one() {
    let platform = FakePlatform::new();
    FakeDevice::new(&platform, Plan::default());
    let services: Arc<dyn Platform> = Arc::clone(&platform) as _;
    let (bus, root) = (VdpaBus::new("vdpa"), Node::root("machine"));
    let mut devices = VirtioMmio::new(&services, &bus, &root);
    for _ in 0..2 {
        let place = description();
        // SAFETY: the device is there.
        platform.block_on(unsafe { devices.attach(&place) });
    }
    let found = bus.devices();
    assert_eq!(found.len(), 1);
    assert_eq!(
        vdpa::bus::BusDevice::node(&*found[0]).path(),
        "virtio_mmio.d0000000 -> vdpa0"
    );
}
