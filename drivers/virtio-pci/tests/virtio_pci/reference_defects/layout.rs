//! Where the structures of a function lie: wrapped ends, several capabilities, and what is not
//! there at all.

use vdpa::ops::Abilities;

use crate::bench::{Bench, Driven, address};
use crate::fakes::virtio::{DEVICE, Plan, VirtioCap};

use super::{both, both_running};

const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE_CONFIG: u8 = 4;

/// The usual capabilities, those of one kind replaced.
fn with(kind: u8, others: &[VirtioCap]) -> Plan {
    let mut capabilities = VirtioCap::usual();
    capabilities.retain(|capability| capability.kind != kind);
    capabilities.extend(others);
    Plan {
        capabilities,
        ..Plan::default()
    }
}

/// Linux's `ifcvf` adds offset and length in 32 bits.
#[test]
fn bar_end_cannot_wrap() {
    for driven in Driven::BOTH {
        for kind in [COMMON, NOTIFY, 3, DEVICE_CONFIG] {
            for (offset, length) in [(0xffff_f000, 0x2000), (0x1000, 0xffff_f000)] {
                let wrapped = VirtioCap::new(kind, offset, length);
                Bench::of(driven, with(kind, &[wrapped])).assert_refused();
            }
        }
    }
}

/// Linux's `ifcvf` takes the last one; VIRTIO 1.2, 4.1.4.2 wants the first that is acceptable.
#[test]
fn the_first_acceptable_capability_counts() {
    let good = VirtioCap::new(DEVICE_CONFIG, DEVICE, 8);
    let later = VirtioCap::new(DEVICE_CONFIG, DEVICE, 16);
    let outside = VirtioCap::new(DEVICE_CONFIG, 0xffff_0000, 16);
    let reserved = VirtioCap { bar: 6, ..later };
    for (capabilities, size) in [
        (vec![good, later], 8),
        (vec![later, good], 16),
        (vec![outside, reserved, good, later], 8),
    ] {
        for (_bench, vdpa) in both(&with(DEVICE_CONFIG, &capabilities)) {
            assert_eq!(vdpa.config_size(), Ok(size));
        }
    }
}

/// Linux's `ifcvf` maps BARs 0, 2 and 4, and takes a capability that names another one for valid.
#[test]
fn a_capability_that_leads_to_a_bar_without_registers_is_not_followed() {
    for bar in [1, 3, 5] {
        let elsewhere = VirtioCap {
            bar,
            ..VirtioCap::new(COMMON, 0, 0x40)
        };
        Bench::of(Driven::Ifcvf, with(COMMON, &[elsewhere])).assert_refused();
        if bar != 1 {
            Bench::of(Driven::VpVdpa, with(COMMON, &[elsewhere])).assert_refused();
        }
    }
}

/// Linux's `ifcvf` writes the state of queues to the start of BAR 4, whatever is there; on QEMU's
/// functions it overwrites the addresses of the rings.
#[test]
fn the_common_configuration_is_not_taken_for_a_live_migration_block() {
    for (bench, vdpa, _calls) in both_running(&Plan::default()) {
        assert_eq!(vdpa.abilities(), Abilities::empty());
        let state = bench.device.state.lock();
        for (index, queue) in (0..).zip(&state.queues) {
            assert_eq!(queue.address(), address(index));
        }
        drop(state);
        bench.run(vdpa.reset()).unwrap();
        assert_eq!(bench.device.violations(), Vec::<String>::new());
    }
}

/// Linux's `ifcvf` gives away as many bytes as the multiplier says, or a page in which others ring,
/// too.
#[test]
fn a_doorbell_region_is_a_whole_page_or_none() {
    const PAGE: u32 = 4096;
    let doorbells = |offset, multiplier, length| {
        let notify = VirtioCap {
            multiplier,
            ..VirtioCap::new(NOTIFY, offset, length)
        };
        Plan {
            bar4_size: 0x8000,
            ..with(NOTIFY, &[notify])
        }
    };
    for (offset, multiplier, length, given) in [
        (0x4000, 0, PAGE, [false; 3]),
        (0x4000, 2, PAGE, [false; 3]),
        (0x4000, 4, PAGE, [false; 3]),
        (0x4000, PAGE / 2, 2 * PAGE, [false, false, true]),
        (0x4000, PAGE, 3 * PAGE, [true; 3]),
        (0x4000, PAGE, 2 * PAGE + 2, [true, true, false]),
        (0x4800, PAGE, 3 * PAGE, [false; 3]),
    ] {
        for (_bench, vdpa) in both(&doorbells(offset, multiplier, length)) {
            let areas = [0, 1, 2].map(|queue| vdpa.notification_area(queue).unwrap());
            assert_eq!(areas.map(|area| area.is_some()), given);
            for area in areas.into_iter().flatten() {
                assert_eq!((area.len, area.base.0 % 4096), (4096, 0));
            }
        }
    }
}
