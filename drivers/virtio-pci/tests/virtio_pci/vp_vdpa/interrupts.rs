//! Interrupt vectors: one per queue, shared, or none.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Features;
use vdpa::device::VdpaClaim;
use virtio::DeviceStatus;

use crate::fakes::virtio::{Plan, version_1};

use super::{Bench, Calls, driver, running};

/// Who is called when queue 1 and when the configuration interrupts.
fn called(plan: Plan, limit: usize) -> (Bench, Arc<VdpaClaim>, Calls, [[u32; 4]; 2]) {
    let (bench, vdpa) = Bench::probed(plan);
    bench.machine.platform.limit_vectors(limit);
    let calls = Calls::default();
    bench.start(&vdpa, version_1(), &calls).unwrap();
    let interrupt = |raise: &dyn Fn()| {
        raise();
        // Without vectors somebody must look.
        bench.machine.platform.run_until_stalled();
        bench.machine.platform.advance(Duration::from_millis(2));
        bench.machine.platform.run_until_stalled();
        calls.take()
    };
    let queue = interrupt(&|| bench.device.interrupt_queue(1, &bench.machine.platform));
    let config = interrupt(&|| bench.device.interrupt_config(&bench.machine.platform));
    assert_eq!(bench.device.violations(), Vec::<String>::new());
    (bench, vdpa, calls, [queue, config])
}

#[test]
fn four_vectors_serve_three_queues_and_the_configuration() {
    let (bench, _vdpa, _calls, called) = called(Plan::default(), usize::MAX);
    assert_eq!(called, [[0, 1, 0, 0], [0, 0, 0, 1]]);
    assert_eq!(bench.machine.platform.vectors_in_use(), 4);
}

#[test]
fn two_vectors_serve_all_queues_and_the_configuration() {
    for (vectors, limit) in [(2, usize::MAX), (3, usize::MAX), (4, 2)] {
        let (bench, _vdpa, _calls, called) = called(
            Plan {
                vectors,
                ..Plan::default()
            },
            limit,
        );
        assert_eq!(called, [[1, 1, 1, 0], [0, 0, 0, 1]]);
        assert_eq!(bench.machine.platform.vectors_in_use(), 2);
    }
}

#[test]
fn one_vector_serves_everything() {
    for (vectors, limit) in [(1, usize::MAX), (4, 1)] {
        let (bench, _vdpa, _calls, called) = called(
            Plan {
                vectors,
                ..Plan::default()
            },
            limit,
        );
        // With MSI-X the device does not say why, so everybody is called.
        assert_eq!(called, [[1, 1, 1, 1], [1, 1, 1, 1]]);
        assert_eq!(bench.machine.platform.vectors_in_use(), 1);
    }
}

#[test]
fn without_vectors_the_isr_status_is_looked_at() {
    for (vectors, limit) in [(0, usize::MAX), (4, 0)] {
        let (bench, vdpa, calls, called) = called(
            Plan {
                vectors,
                ..Plan::default()
            },
            limit,
        );
        assert_eq!(called, [[1, 1, 1, 0], [0, 0, 0, 1]]);
        assert!(!bench.device.is_msix_enabled());
        // The task ends with the reset and calls nobody any more.
        bench.run(vdpa.reset()).unwrap();
        bench.device.interrupt_queue(1, &bench.machine.platform);
        bench.machine.platform.advance(Duration::from_millis(2));
        bench.machine.platform.run_until_stalled();
        assert_eq!(calls.take(), [0; 4]);
        assert_eq!(bench.machine.platform.tasks(), Vec::<String>::new());
    }
}

#[test]
fn a_reset_frees_the_vectors_and_clears_the_callbacks() {
    let (bench, vdpa, calls, _) = called(Plan::default(), usize::MAX);
    bench.run(vdpa.reset()).unwrap();
    assert_eq!(bench.machine.platform.vectors_in_use(), 0);
    assert_eq!(bench.device.unmasked(), 0);
    assert!(!bench.device.is_msix_enabled());
    for queue in 0..3 {
        assert_eq!(vdpa.queue_ready(queue), Ok(false));
    }
    // Started again without callbacks, nobody is called.
    bench.run(vdpa.set_status(driver())).unwrap();
    vdpa.set_driver_features(Features::from_bits(version_1()))
        .unwrap();
    bench
        .run(vdpa.set_status(driver() | DeviceStatus::FEATURES_OK))
        .unwrap();
    bench.run(vdpa.set_status(running())).unwrap();
    bench.device.interrupt_queue(1, &bench.machine.platform);
    assert_eq!(calls.take(), [0; 4]);
    assert_eq!(bench.machine.platform.vectors_in_use(), 0);
}

#[test]
fn a_queue_that_is_polled_takes_no_vector() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    let calls = Calls::default();
    bench.run(vdpa.set_status(driver())).unwrap();
    vdpa.set_driver_features(Features::from_bits(version_1()))
        .unwrap();
    bench
        .run(vdpa.set_status(driver() | DeviceStatus::FEATURES_OK))
        .unwrap();
    vdpa.set_queue_callback(2, Some(calls.callback(2))).unwrap();
    bench.run(vdpa.set_status(running())).unwrap();
    assert_eq!(bench.machine.platform.vectors_in_use(), 1);
    let vectors: Vec<_> = bench
        .device
        .state
        .lock()
        .queues
        .iter()
        .map(|queue| queue.vector)
        .collect();
    assert_eq!(vectors, [0xffff, 0xffff, 0]);
}
