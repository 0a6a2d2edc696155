//! Interrupts: refused, shared, and still under way when somebody wants to free what they use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vdpa::platform::Callback;
use virtio::DeviceStatus;

use crate::bench::{Bench, Calls, Driven, running};
use crate::fakes::virtio::version_1;

use super::{both, both_running, with_vectors};

/// Linux's `ifcvf` does not count the vector of this mode, so it frees queues under a handler that
/// runs.
#[test]
fn with_one_vector_for_all_a_reset_waits_for_its_handler() {
    for driven in Driven::BOTH {
        assert_reset_waits(driven, 1);
    }
}

#[test]
fn with_any_number_of_vectors_a_reset_waits_for_handlers_that_run() {
    for driven in Driven::BOTH {
        for vectors in [4, 2, 0] {
            assert_reset_waits(driven, vectors);
        }
    }
}

/// A handler that runs on another processor, and a reset meanwhile.
#[track_caller]
fn assert_reset_waits(driven: Driven, vectors: u16) {
    let (bench, vdpa) = Bench::probed_by(driven, with_vectors(vectors));
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.run(vdpa.reset()).unwrap();
    let [entered, release, ended, is_reset] = [(); 4].map(|()| Arc::new(AtomicBool::new(false)));
    let handler = {
        let flags = [&entered, &release, &ended].map(Arc::clone);
        Callback::new(move || {
            let [entered, release, ended] = &flags;
            entered.store(true, Ordering::SeqCst);
            wait_for(release);
            ended.store(true, Ordering::SeqCst);
        })
    };
    start_one(&bench, &vdpa, handler);
    thread::scope(|scope| {
        let platform = &bench.machine.platform;
        scope.spawn(|| {
            bench.device.interrupt_queue(0, platform);
            // Without a vector it is a task that looks.
            platform.run_until_stalled();
            platform.advance(Duration::from_millis(2));
            platform.run_until_stalled();
        });
        wait_for(&entered);
        scope.spawn(|| {
            bench.run(vdpa.reset()).unwrap();
            assert!(
                ended.load(Ordering::SeqCst),
                "{driven:?}, {vectors} vectors"
            );
            is_reset.store(true, Ordering::SeqCst);
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!is_reset.load(Ordering::SeqCst));
        release.store(true, Ordering::SeqCst);
    });
    // Nobody is called any more.
    entered.store(false, Ordering::SeqCst);
    bench.device.interrupt_queue(0, &bench.machine.platform);
    assert!(!entered.load(Ordering::SeqCst));
    assert_eq!(bench.machine.platform.vectors_in_use(), 0);
}

/// Starts the device with one callback, that of queue 0.
fn start_one(bench: &Bench, vdpa: &vdpa::device::VdpaClaim, handler: Callback) {
    let features = version_1() | bench.driven.features();
    bench.run(async {
        let agreed = running().difference(DeviceStatus::DRIVER_OK);
        let before = agreed.difference(DeviceStatus::FEATURES_OK);
        vdpa.set_status(before).await.unwrap();
        let features = vdpa::Features::from_bits(features);
        vdpa.set_driver_features(features).unwrap();
        vdpa.set_status(agreed).await.unwrap();
        vdpa.set_queue_callback(0, Some(handler)).unwrap();
        vdpa.set_status(running()).await.unwrap();
    });
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}

/// Linux's `vp_vdpa` does not read back whether the device has taken a vector, and waits for ever.
/// Linux' `ifcvf` leaves the device without `DRIVER_OK` then, and lets the driver believe that it
/// runs.
#[test]
fn a_refused_vector_is_noticed_and_the_device_serves_without() {
    // Of the vectors with one for each; how many are left in use then.
    for (refused, taken) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
        for (bench, vdpa) in both(&with_vectors(4)) {
            bench.device.state.lock().refused = Some(refused);
            let calls = Calls::default();
            bench.start(&vdpa, version_1(), &calls).unwrap();
            assert_eq!(vdpa.status(), Ok(running()));
            // The others have been given back, and without any the device keeps the ISR status.
            assert_eq!(bench.machine.platform.vectors_in_use(), taken);
            assert_eq!(bench.device.unmasked(), taken);
            assert_eq!(bench.device.is_msix_enabled(), taken != 0);
            let state = bench.device.state.lock();
            let queues = state.queues.iter().map(|queue| queue.vector);
            let told: Vec<u16> = queues.chain([state.config_vector]).collect();
            drop(state);
            let none = |vector: &u16| *vector == 0xffff;
            assert_eq!(told.iter().all(none), taken == 0);
            assert_eq!(told.iter().any(none), taken == 0);
            bench.device.interrupt_queue(1, &bench.machine.platform);
            bench.device.interrupt_config(&bench.machine.platform);
            bench.machine.platform.run_until_stalled();
            bench.machine.platform.advance(Duration::from_millis(2));
            bench.machine.platform.run_until_stalled();
            let calls = calls.take();
            assert!(calls.iter().all(|count| *count > 0), "{calls:?}");
        }
    }
}

/// Linux's `ifcvf` tells the vector of another queue, or of the configuration, where vectors are
/// shared.
#[test]
fn only_a_vector_of_its_own_is_reported_as_the_queues() {
    for vectors in [4, 3, 2, 1, 0] {
        for (bench, vdpa, calls) in both_running(&with_vectors(vectors)) {
            let messages = [0, 1, 2].map(|queue| vdpa.queue_interrupt(queue).unwrap());
            assert_eq!(messages.map(|message| message.is_some()), [vectors == 4; 3]);
            for (queue, message) in messages.into_iter().enumerate() {
                let Some(message) = message else { continue };
                bench.machine.platform.fire(message);
                let mut called = [0; 4];
                called[queue] = 1;
                assert_eq!(calls.take(), called);
            }
        }
    }
}

/// Linux's `vp_vdpa` wants exactly one vector per queue and one more, and fails with fewer.
#[test]
fn with_too_few_vectors_the_queues_share_them() {
    for (vectors, limit) in [(3, usize::MAX), (2, usize::MAX), (1, usize::MAX), (4, 2)] {
        for (bench, vdpa) in both(&with_vectors(vectors)) {
            bench.machine.platform.limit_vectors(limit);
            let calls = Calls::default();
            bench.start(&vdpa, version_1(), &calls).unwrap();
            bench.device.interrupt_queue(2, &bench.machine.platform);
            assert_eq!(calls.take()[..3], [1, 1, 1]);
            bench.device.interrupt_config(&bench.machine.platform);
            assert_eq!(calls.take()[3], 1);
        }
    }
}
