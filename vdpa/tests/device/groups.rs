//! What a device says of its groups, its doorbells and its counters.

use vdpa::ops::{NotificationArea, OpError};
use vdpa::platform::PhysAddr;
use vdpa::testing::{FakeParent, Traits, Translation};

use crate::world::{NET, World};

fn world(traits: Traits) -> World {
    let mut w = World::new();
    let features = virtio::net::F::MAC;
    w.parent = FakeParent::with_traits(&w.platform, NET, features, &[64, 64], &[], traits);
    w
}

#[test]
fn a_group_that_does_not_exist_is_the_device_s_mistake() {
    let traits = Traits {
        groups: vec![0, 5],
        group_count: 2,
        descriptor_group: Some(2),
        ..Traits::default()
    };
    let w = world(traits);
    let device = w.platform.block_on(w.hold());
    assert_eq!(device.queue_group(0), Ok(0));
    assert_eq!(device.queue_group(1), Err(OpError::Broken));
    assert_eq!(device.descriptor_group(0), Err(OpError::Broken));
}

#[test]
fn a_reset_brings_every_group_back_to_the_first_address_space() {
    let traits = Traits {
        translation: Translation::Incremental,
        spaces: 2,
        group_count: 2,
        groups: vec![0, 1],
        ..Traits::default()
    };
    let w = world(traits);
    let device = w.platform.block_on(w.hold());
    w.platform.block_on(device.set_group_space(1, 1)).unwrap();
    assert_eq!(w.parent.group_space(1), 1);
    w.platform.block_on(device.reset()).unwrap();
    assert_eq!(w.parent.group_space(1), 0);
}

#[test]
fn doorbells_and_counters_are_those_of_the_queue() {
    let page = NotificationArea {
        base: PhysAddr(0x10_0000),
        len: 4096,
    };
    let traits = Traits {
        doorbells: Some(page),
        ..Traits::default()
    };
    let w = world(traits);
    let device = w.platform.block_on(w.hold());
    let second = NotificationArea {
        base: PhysAddr(0x10_1000),
        ..page
    };
    assert_eq!(device.notification_area(1), Ok(Some(second)));
    w.parent.interrupt(1);
    let counted = [("completed", 0), ("interrupts", 1)];
    assert_eq!(device.queue_statistics(1).unwrap(), counted);
    assert_eq!(device.queue_statistics(0).unwrap()[1], ("interrupts", 0));
    let facts = device.node().report().unwrap().facts;
    let shown = facts.iter().find(|(name, _)| *name == "counted");
    assert_eq!(shown.unwrap().1, "queue 1 interrupts 1");
}
