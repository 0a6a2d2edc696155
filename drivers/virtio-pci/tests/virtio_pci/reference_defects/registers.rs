//! Registers: waits without an end, features and configuration half read, and what cannot be known.

use std::time::Duration;

use vdpa::ops::{OpError, QueueState};
use vdpa::{Features, Platform};
use virtio::DeviceStatus;

use crate::bench::{Bench, Calls, Driven, driver};
use crate::fakes::registers::{Generation, Resetting};
use crate::fakes::virtio::{Plan, net_fields, ring_reset, version_1};

use super::{both, both_running};

/// Linux's `ifcvf` waits for ever.
#[test]
fn a_reset_that_never_ends_is_given_up() {
    for (bench, vdpa, calls) in both_running(&Plan::default()) {
        bench.device.state.lock().resetting = Resetting::Never;
        assert_eq!(bench.run(vdpa.reset()), Err(OpError::Timeout));
        assert!(bench.machine.platform.now() < Duration::from_secs(3));
        // It may go on, but nobody is called.
        assert_eq!(bench.machine.platform.vectors_in_use(), 0);
        bench.device.interrupt_queue(0, &bench.machine.platform);
        assert_eq!(calls.take(), [0; 4]);
    }
    for driven in Driven::BOTH {
        let bench = Bench::of(driven, Plan::default());
        bench.device.state.lock().resetting = Resetting::Never;
        bench.assert_refused();
    }
}

/// Linux's `ifcvf` waits for ever for one that has been unplugged, too.
#[test]
fn a_function_that_is_gone_is_not_waited_for() {
    for (bench, vdpa, calls) in both_running(&Plan::default()) {
        bench.function.pull_out();
        let gone = Err(OpError::Gone);
        assert_eq!(bench.run(vdpa.stop_queue(0)), gone);
        assert_eq!(vdpa.queue_ready(0), Err(OpError::Gone));
        assert_eq!(vdpa.read_config(0, &mut [0; 8]), gone);
        assert_eq!(vdpa.write_config(0, &[0]), gone);
        assert_eq!(bench.run(vdpa.reset()), gone);
        assert_eq!(bench.start(&vdpa, version_1(), &calls), gone);
        assert_eq!(bench.machine.platform.now(), Duration::ZERO);
        assert_eq!(bench.machine.platform.vectors_in_use(), 0);
    }
}

/// Linux's `vp_vdpa` writes 0 and does not look whether it reads 0 (VIRTIO 1.2, 4.1.4.3.2).
#[test]
fn a_reset_is_over_when_the_device_says_so() {
    for (bench, vdpa, _calls) in both_running(&Plan::default()) {
        let before = bench.device.state.lock().resets;
        bench.device.state.lock().resetting = Resetting::After(20);
        bench.run(vdpa.reset()).unwrap();
        assert_eq!(bench.device.state.lock().resets, before + 1);
        assert_eq!(vdpa.status().unwrap().bits(), 0);
        assert!(bench.machine.platform.now() > Duration::from_millis(10));
    }
}

/// Linux's `ifcvf` selects a word with the wrong selector, and tells one of them twice.
#[test]
fn accepted_features_are_those_that_were_written_in_both_halves() {
    accepts_what_is_written(version_1() | 0x0000_0004_1000_0021);
}

/// VIRTIO 1.4 has 128 of them; Linux's `ifcvf` knows 64.
#[test]
fn features_of_the_upper_half_are_accepted_where_they_are_offered() {
    accepts_what_is_written(version_1() | 0x20 | 1 << 64 | 1 << 95);
    accepts_what_is_written(version_1() | 1 << 64 | 1 << 127);
}

fn accepts_what_is_written(offered: u128) {
    let plan = Plan {
        features: offered,
        ..Plan::default()
    };
    for (bench, vdpa) in both(&plan) {
        let shown = Features::from_bits(offered | bench.driven.features());
        assert_eq!(vdpa.device_features(), Ok(shown));
        for chosen in [offered, version_1(), version_1() | offered & 0x20] {
            let chosen = Features::from_bits(chosen | bench.driven.features());
            bench.run(vdpa.reset()).unwrap();
            bench.run(vdpa.set_status(driver())).unwrap();
            vdpa.set_driver_features(chosen).unwrap();
            let agreed = driver() | DeviceStatus::FEATURES_OK;
            bench.run(vdpa.set_status(agreed)).unwrap();
            assert_eq!(vdpa.driver_features(), Ok(chosen));
            let written = bench.device.state.lock().driver_features;
            assert_eq!(written, chosen.bits());
        }
        assert_eq!(bench.device.state.lock().violations, [""; 0]);
    }
}

/// Linux offers whatever the function does, also what needs more than the parent has.
#[test]
fn features_that_the_parent_has_no_means_for_are_not_offered() {
    let extra = virtio::F::ADMIN_VQ | virtio::F::SR_IOV | virtio::F::NOTIF_CONFIG_DATA;
    let plan = Plan {
        features: version_1() | Features::from(extra).bits(),
        ..Plan::default()
    };
    for (bench, vdpa) in both(&plan) {
        let offered = Features::from_bits(version_1() | bench.driven.features());
        assert_eq!(vdpa.device_features(), Ok(offered));
    }
}

/// Linux's `ifcvf` reads it again and again, without a bound.
#[test]
fn a_configuration_that_never_settles_is_given_up() {
    let plan = Plan {
        features: net_fields(),
        ..Plan::default()
    };
    for (bench, vdpa, _calls) in both_running(&plan) {
        bench.device.state.lock().generation = Generation::Changes(u32::MAX);
        let read = vdpa.read_config(0, &mut [0; 8]);
        assert_eq!(read, Err(OpError::Timeout));
        assert!(bench.device.state.lock().config_reads.len() < 1000);
    }
}

/// The cards cannot be read in 64 bits (DPDK), and Linux reads byte by byte, which VIRTIO 1.2,
/// 4.1.3.1 forbids.
#[test]
fn wide_configuration_fields_are_read_in_halves() {
    let disk = Plan {
        device: 0x1042,
        ..Plan::default()
    };
    for (bench, vdpa, _calls) in both_running(&disk) {
        bench.device.state.lock().config_reads.clear();
        let mut capacity = [0; 8];
        vdpa.read_config(0, &mut capacity).unwrap();
        assert_eq!(capacity, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(bench.device.state.lock().config_reads, [4, 4]);
    }
}

/// Linux's `vp_vdpa` does not compare with the length of the structure.
#[test]
fn nothing_is_read_or_written_beyond_the_configuration() {
    for (bench, vdpa, _calls) in both_running(&Plan::default()) {
        let size = vdpa.config_size().unwrap();
        for offset in [size - 3, size, u32::MAX - 3, u32::MAX] {
            let refused = Err(OpError::OutOfRange);
            assert_eq!(vdpa.read_config(offset, &mut [0; 4]), refused);
            assert_eq!(vdpa.write_config(offset, &[0; 4]), refused);
        }
        let reads = bench.device.state.lock().config_reads.clone();
        assert_eq!(reads, Vec::<u8>::new());
        assert_eq!(bench.device.violations(), Vec::<String>::new());
    }
}

/// Linux tells one size for all queues: `ifcvf` that of the largest, `vp_vdpa` 256.
#[test]
fn every_queue_has_a_largest_size_of_its_own() {
    let plan = Plan {
        queues: vec![1024, 256, 64],
        ..Plan::default()
    };
    for (_bench, vdpa) in both(&plan) {
        let sizes = [0, 1, 2].map(|queue| vdpa.queue_size_limits(queue).unwrap().1);
        assert_eq!(sizes, [1024, 256, 64]);
    }
}

/// Where a queue stands that has run only the device knows, and without registers for that it
/// cannot tell.
#[test]
fn a_state_that_cannot_be_told_is_not_invented() {
    for (bench, vdpa) in both(&Plan::default()) {
        let start = QueueState::Split { avail_index: 0 };
        bench.run(vdpa.set_status(driver())).unwrap();
        let features = Features::from_bits(version_1() | bench.driven.features());
        vdpa.set_driver_features(features).unwrap();
        let agreed = driver() | DeviceStatus::FEATURES_OK;
        bench.run(vdpa.set_status(agreed)).unwrap();
        assert_eq!(bench.run(vdpa.queue_state(0)), Ok(start));
        assert_eq!(vdpa.set_queue_state(0, start), Ok(()));
        let other = QueueState::Split { avail_index: 1 };
        assert_eq!(vdpa.set_queue_state(0, other), Err(OpError::Unsupported));
        bench.run(vdpa.reset()).unwrap();
        bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
        assert_eq!(bench.run(vdpa.stop_queue(0)), Err(OpError::Unsupported));
        assert_eq!(bench.run(vdpa.suspend()), Err(OpError::Unsupported));
    }
    let features = version_1() | ring_reset();
    let plan = Plan {
        features,
        ..Plan::default()
    };
    for (bench, vdpa) in both(&plan) {
        bench.start(&vdpa, features, &Calls::default()).unwrap();
        bench.run(vdpa.stop_queue(0)).unwrap();
        assert_eq!(bench.run(vdpa.queue_state(0)), Err(OpError::Unsupported));
    }
}
