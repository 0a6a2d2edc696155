//! Fake devices that do what the specification says.

use std::time::Duration;

use vdpa::conformance::Service;
use vdpa::ops::{Abilities, NotificationArea};
use vdpa::platform::PhysAddr;
use vdpa::testing::{Traits, Translation};

use crate::fake::{Fake, report, skipped};

/// Everything of these kinds, and nothing else, has been skipped.
#[track_caller]
fn assert_passes(fake: &Fake, may_skip: &[&str]) {
    let report = report(&fake.platform, fake);
    assert!(report.is_passed(), "{report}");
    for name in skipped(&report) {
        let known = may_skip.iter().any(|part| name.contains(part));
        assert!(known, "{name} is skipped\n{report}");
    }
    for part in may_skip {
        let used = skipped(&report).iter().any(|name| name.contains(part));
        assert!(used, "{part} is not skipped\n{report}");
    }
    // The servers find out that their devices are gone.
    fake.platform.advance(Duration::from_millis(1));
    fake.platform.run_until_stalled();
    assert_eq!(fake.platform.tasks(), Vec::<String>::new());
    assert_eq!(fake.platform.heap().outstanding(), 0, "memory is left");
}

/// What concerns disks.
const DISK: [&str; 6] = [
    "read back",
    "has a name",
    "beyond its end",
    "does not exist is refused",
    "requests are answered",
    "in order, past the end",
];
const FRAMES: &str = "frames";
/// What concerns devices that translate.
const MAPS: [&str; 6] = [
    "whole and in parts, in every",
    "outside its addresses",
    "over a reset",
    "platform's addresses",
    "taken away is not touched",
    "address space of its group",
];

/// What concerns devices that log what they write.
const LOG: [&str; 4] = [
    "the dirty-page log equals",
    "after the log was stopped",
    "ends the dirty-page log",
    "a log that ends early",
];

#[test]
fn a_network_device_with_every_ability_conforms() {
    let traits = Traits {
        abilities: Abilities::all().difference(Abilities::PERSISTENT_MAPS),
        doorbells: Some(NotificationArea {
            base: PhysAddr(0x8000_0000),
            len: 4096,
        }),
        ..Traits::default()
    };
    let fake = Fake::new(Service::NetLoopback, traits);
    let mut may_skip = Vec::from(&DISK[..5]);
    may_skip.extend(MAPS);
    assert_passes(&fake, &may_skip);
}

#[test]
fn a_disk_conforms() {
    let fake = Fake::new(Service::Blk, Traits::default());
    let mut may_skip = Vec::from(MAPS);
    may_skip.extend([FRAMES, "a change has a new generation"]);
    assert_passes(&fake, &may_skip);
}

#[test]
fn a_device_without_any_ability_conforms() {
    let traits = Traits {
        abilities: Abilities::empty(),
        ..Traits::default()
    };
    let mut fake = Fake::new(Service::NetLoopback, traits);
    fake.features = vdpa::Features::EMPTY;
    let mut may_skip = Vec::from(&DISK[..5]);
    may_skip.extend(MAPS);
    may_skip.extend([
        "packed: a queue starts",
        "packed: frames",
        "suspended",
        "goes on where it stood",
        "has not been started cannot be suspended",
    ]);
    may_skip.extend(LOG);
    assert_passes(&fake, &may_skip);
}

#[test]
fn devices_that_translate_conform() {
    for translation in [Translation::Incremental, Translation::Whole] {
        for persistent in [Abilities::empty(), Abilities::PERSISTENT_MAPS] {
            let traits = Traits {
                abilities: Traits::default().abilities | persistent,
                translation,
                iova_range: vdpa::iotlb::IovaRange::new(1 << 30, 1 << 30).unwrap(),
                spaces: 3,
                groups: vec![0, 0, 1],
                group_count: 2,
                descriptor_group: Some(1),
                ..Traits::default()
            };
            // Its memory is real only at the platform's addresses, so nobody can serve it.
            let fake = Fake::new(Service::None, traits);
            let mut may_skip = Vec::from(DISK);
            may_skip.extend([
                FRAMES,
                "over a reset",
                "taken away is not touched",
                "address space of its group",
                "goes on where it stood",
                "nothing is lost or doubled",
                "kicked meanwhile",
                "again and again",
                "goes through its queues is counted",
                "callback is called",
                "nobody is called",
            ]);
            may_skip.extend(LOG);
            assert_passes(&fake, &may_skip);
        }
    }
}
