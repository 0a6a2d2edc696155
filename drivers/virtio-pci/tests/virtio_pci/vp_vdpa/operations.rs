//! Operations as register accesses, with bounded waits.

use std::time::Duration;

use vdpa::ops::{OpError, QueueState};
use vdpa::{Features, Platform, VdpaOps};
use virtio::DeviceStatus;
use virtio_pci::Parent;
use virtio_pci::vp_vdpa;

use crate::fakes::registers::Generation;
use crate::fakes::virtio::{Plan, net_fields, ring_reset, version_1};

use super::{Bench, Calls, NAME, address, driver, running};

/// The operations without a bus, with `features` negotiated and running on every queue.
fn running_parent(features: u128, calls: &Calls) -> (Bench, Parent) {
    let bench = Bench::new(Plan {
        features,
        ..Plan::default()
    });
    let (function, platform) = (bench.machine.device(NAME), bench.machine.platform());
    let parent = bench.run(async {
        let parent = vp_vdpa::probe(&function, &platform, 1).await.unwrap();
        parent
            .set_driver_features(Features::from_bits(features))
            .unwrap();
        let features_ok = driver() | DeviceStatus::FEATURES_OK;
        parent.set_status(features_ok).await.unwrap();
        for queue in 0..parent.queue_count() {
            parent.set_queue_callback(queue, Some(calls.callback(usize::from(queue))));
            parent.set_queue_size(queue, 16).unwrap();
            // SAFETY: the fake has no memory to find there.
            unsafe { parent.set_queue_address(queue, address(queue)) }.unwrap();
            parent.set_queue_ready(queue, true).await.unwrap();
        }
        parent.set_status(running()).await.unwrap();
        parent
    });
    (bench, parent)
}

/// Such a device would take its rings from the start of memory, or believe them to be longer than
/// they are.
#[test]
fn a_queue_without_size_and_address_is_not_started() {
    for (sized, placed) in [(false, false), (true, false), (false, true)] {
        let bench = Bench::new(Plan::default());
        let (function, platform) = (bench.machine.device(NAME), bench.machine.platform());
        bench.run(async {
            let parent = vp_vdpa::probe(&function, &platform, 1).await.unwrap();
            let features = Features::from_bits(version_1());
            parent.set_driver_features(features).unwrap();
            let features_ok = driver() | DeviceStatus::FEATURES_OK;
            parent.set_status(features_ok).await.unwrap();
            if sized {
                parent.set_queue_size(0, 16).unwrap();
            }
            if placed {
                // SAFETY: the fake has no memory to find there.
                unsafe { parent.set_queue_address(0, address(0)) }.unwrap();
            }
            let started = parent.set_queue_ready(0, true).await;
            assert_eq!(started, Err(OpError::WrongState));
            parent.set_status(running()).await.unwrap();
            let started = parent.set_queue_ready(0, true).await;
            assert_eq!(started, Err(OpError::WrongState));
        });
        assert!(!bench.device.state.lock().queues[0].enabled);
    }
}

#[test]
fn a_started_device_has_what_was_asked_for() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    assert_eq!(vdpa.status().unwrap(), running());
    assert_eq!(vdpa.queue_count(), 3);
    assert_eq!(vdpa.queue_size_limits(2).unwrap().1, 64);
    let state = bench.device.state.lock();
    assert_eq!(state.driver_features, version_1());
    for (index, queue) in (0..).zip(&state.queues) {
        assert_eq!((queue.size, queue.enabled), (16, true));
        assert_eq!(queue.address(), address(index));
    }
    drop(state);
    for queue in 0..3 {
        vdpa.doorbell(queue).unwrap().ring(0);
        assert_eq!(bench.device.kicks(usize::from(queue)), 1);
    }
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn refused_features_are_reported() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.run(vdpa.set_status(driver())).unwrap();
    vdpa.set_driver_features(Features::from_bits(version_1()))
        .unwrap();
    bench.device.state.lock().insists_on = 1;
    let agreed = bench.run(vdpa.set_status(driver() | DeviceStatus::FEATURES_OK));
    assert_eq!(agreed, Err(OpError::FeaturesRefused));
}

#[test]
fn features_that_need_more_than_a_doorbell_are_not_offered() {
    let extra = virtio::F::ADMIN_VQ | virtio::F::NOTIF_CONFIG_DATA | virtio::F::SR_IOV;
    let features = version_1() | Features::from(extra).bits() | 0x21;
    let (_bench, vdpa) = Bench::probed(Plan {
        features,
        ..Plan::default()
    });
    assert_eq!(vdpa.device_features().unwrap().bits(), version_1() | 0x21);
}

#[test]
fn configuration_is_read_in_the_width_of_the_field() {
    let plan = Plan {
        features: net_fields(),
        ..Plan::default()
    };
    let (bench, vdpa) = Bench::probed(plan);
    bench.run(vdpa.set_status(driver())).unwrap();
    bench.device.state.lock().config_reads.clear();
    let read = |offset, len| {
        let mut bytes = vec![0; len];
        vdpa.read_config(offset, &mut bytes).map(|()| bytes)
    };
    assert_eq!(read(0, 6).unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(read(6, 2).unwrap(), [6, 7]);
    assert_eq!(read(8, 8).unwrap(), [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(read(3, 4).unwrap(), [3, 4, 5, 6]);
    assert_eq!(read(0xfff, 2), Err(OpError::OutOfRange));
    assert_eq!(read(u32::MAX, 2), Err(OpError::OutOfRange));
    let widths = bench.device.state.lock().config_reads.clone();
    assert_eq!(widths, [1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 1, 1, 1, 2]);
}

#[test]
fn configuration_that_comes_with_no_feature_is_not_read() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.run(vdpa.set_status(driver())).unwrap();
    let mut bytes = [1; 16];
    vdpa.read_config(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
    assert_eq!(bench.device.state.lock().config_reads, []);
}

#[test]
fn a_type_that_nobody_knows_has_fields_as_long_as_they_are_asked_for() {
    let (bench, vdpa) = Bench::probed(Plan {
        device: 0x107f,
        ..Plan::default()
    });
    bench.run(vdpa.set_status(driver())).unwrap();
    for (offset, len) in [(0, 6), (6, 2), (8, 8), (4, 4)] {
        let mut bytes = vec![0; len];
        vdpa.read_config(offset, &mut bytes).unwrap();
        assert_eq!(u32::from(bytes[0]), offset);
    }
    let widths = bench.device.state.lock().config_reads.clone();
    assert_eq!(widths, [1, 1, 1, 1, 1, 1, 2, 4, 4, 4]);
}

#[test]
fn without_a_driver_the_configuration_is_what_was_last_read() {
    let plan = Plan {
        features: net_fields(),
        ..Plan::default()
    };
    let (bench, vdpa) = Bench::probed(plan);
    bench.device.state.lock().config_reads.clear();
    let mut bytes = [0; 17];
    vdpa.read_config(2, &mut bytes[..6]).unwrap();
    assert_eq!(bytes[..6], [2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.device.state.lock().config_reads, []);
    assert_eq!(
        vdpa.write_config(0, &[1]),
        Err(OpError::WrongState),
        "VIRTIO 1.2, 3.1.1"
    );
    bench.start(&vdpa, net_fields(), &Calls::default()).unwrap();
    bench.device.state.lock().config_xor = 0x80;
    bench.run(vdpa.reset()).unwrap();
    vdpa.read_config(2, &mut bytes[..6]).unwrap();
    assert_eq!(bytes[..6], [0x82, 0x83, 0x84, 0x85, 0x86, 0x87]);
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn configuration_that_changes_while_it_is_read_is_read_again() {
    let (bench, vdpa) = Bench::probed(Plan {
        features: net_fields(),
        ..Plan::default()
    });
    bench.run(vdpa.set_status(driver())).unwrap();
    bench.device.state.lock().generation = Generation::Changes(3);
    let before = vdpa.config_generation().unwrap();
    let mut bytes = [0; 4];
    vdpa.read_config(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3]);
    assert_ne!(vdpa.config_generation().unwrap(), before);
}

#[test]
fn configuration_that_changes_for_ever_is_given_up() {
    let (bench, vdpa) = Bench::probed(Plan {
        features: net_fields(),
        ..Plan::default()
    });
    bench.run(vdpa.set_status(driver())).unwrap();
    bench.device.state.lock().generation = Generation::Changes(u32::MAX);
    assert_eq!(vdpa.read_config(0, &mut [0; 4]), Err(OpError::Timeout));
}

#[test]
fn a_device_that_turns_all_ones_is_gone() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.function.pull_out();
    assert_eq!(vdpa.status(), Err(OpError::Gone));
    assert_eq!(vdpa.queue_ready(0), Err(OpError::Gone));
    assert_eq!(vdpa.read_config(0, &mut [0; 4]), Err(OpError::Gone));
    assert_eq!(bench.run(vdpa.reset()), Err(OpError::Gone));
    assert_eq!(bench.machine.platform.now(), Duration::ZERO);
}

#[test]
fn without_ring_reset_a_queue_cannot_be_stopped_alone() {
    let (bench, parent) = running_parent(version_1(), &Calls::default());
    assert_eq!(
        bench.run(parent.set_queue_ready(1, false)),
        Err(OpError::Unsupported)
    );
    assert_eq!(parent.queue_ready(1), Ok(true));
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn with_ring_reset_a_queue_stops_and_starts_again_with_its_vector() {
    let calls = Calls::default();
    let (bench, parent) = running_parent(version_1() | ring_reset(), &calls);
    bench.run(parent.set_queue_ready(1, false)).unwrap();
    assert_eq!(
        (parent.queue_ready(0), parent.queue_ready(1)),
        (Ok(true), Ok(false))
    );
    bench.run(parent.set_queue_ready(1, true)).unwrap();
    bench.device.interrupt_queue(1, &bench.machine.platform);
    assert_eq!(calls.take(), [0, 1, 0, 0]);
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn a_queue_that_never_leaves_reset_is_given_up() {
    let (bench, parent) = running_parent(version_1() | ring_reset(), &Calls::default());
    bench.device.state.lock().queue_resets_hang = true;
    assert_eq!(
        bench.run(parent.set_queue_ready(1, false)),
        Err(OpError::Timeout)
    );
}

#[test]
fn the_state_of_a_queue_is_known_until_it_has_run() {
    let (bench, parent) = running_parent(version_1() | ring_reset(), &Calls::default());
    let start = QueueState::Split { avail_index: 0 };
    assert_eq!(bench.run(parent.queue_state(0)), Err(OpError::Unsupported));
    // A queue that was stopped has forgotten where it was; 0 would be wrong.
    bench.run(parent.set_queue_ready(0, false)).unwrap();
    assert_eq!(bench.run(parent.queue_state(0)), Err(OpError::Unsupported));
    bench.run(parent.reset()).unwrap();
    assert_eq!(bench.run(parent.queue_state(0)), Ok(start));
    assert_eq!(parent.set_queue_state(0, start), Ok(()));
    let other = QueueState::Split { avail_index: 7 };
    assert_eq!(parent.set_queue_state(0, other), Err(OpError::Unsupported));
}
