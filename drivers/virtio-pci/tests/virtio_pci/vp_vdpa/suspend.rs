//! Suspending and resuming, where the function can do that.

use std::time::Duration;

use vdpa::Platform;
use vdpa::ops::{Abilities, OpError, QueueState};
use virtio::DeviceStatus;
use virtq::DmaAddr;

use crate::fakes::registers::Suspending;
use crate::fakes::virtio::{Plan, suspend, version_1};

use super::{Bench, Calls, address, running};

fn plan() -> Plan {
    let features = version_1() | suspend();
    Plan {
        features,
        ..Plan::default()
    }
}

#[test]
fn without_the_feature_it_says_that_it_cannot() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    assert_eq!(vdpa.abilities(), Abilities::empty());
    assert_eq!(bench.run(vdpa.suspend()), Err(OpError::Unsupported));
    assert_eq!(bench.run(vdpa.resume()), Err(OpError::Unsupported));
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn the_feature_is_negotiated_on_behalf_of_the_driver() {
    let (bench, vdpa) = Bench::probed(plan());
    assert_eq!(vdpa.device_features().unwrap().bits(), version_1());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    assert_eq!(vdpa.driver_features().unwrap().bits(), version_1());
    let told = bench.device.state.lock().driver_features;
    assert_eq!(told, version_1() | suspend());
}

#[test]
fn a_suspended_device_is_started_for_who_looks_from_above() {
    let (bench, vdpa) = Bench::probed(plan());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.run(vdpa.suspend()).unwrap();
    let status = || DeviceStatus::from_bits_retain(bench.device.state.lock().status);
    assert!(status().contains(DeviceStatus::SUSPEND));
    assert!(!status().contains(DeviceStatus::DRIVER_OK));
    assert_eq!(vdpa.status(), Ok(running()));
    // Another bit does not wake it.
    let failed = running() | DeviceStatus::FAILED;
    bench.run(vdpa.set_status(failed)).unwrap();
    assert!(status().contains(DeviceStatus::SUSPEND | DeviceStatus::FAILED));
    assert_eq!(vdpa.status(), Ok(failed));
    bench.run(vdpa.reset()).unwrap();
    assert!(status().is_empty());
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn a_device_that_goes_on_hears_of_what_was_kicked() {
    let (bench, vdpa) = Bench::probed(plan());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.run(vdpa.suspend()).unwrap();
    let before = [0, 1, 2].map(|queue| bench.device.kicks(queue));
    bench.run(vdpa.resume()).unwrap();
    assert_eq!(bench.device.state.lock().status, running().bits());
    let after = [0, 1, 2].map(|queue| bench.device.kicks(queue));
    assert_eq!(after, before.map(|kicks| kicks + 1));
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn a_device_that_does_not_stop_is_given_up_after_a_deadline() {
    let (bench, vdpa) = Bench::probed(plan());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.device.state.lock().suspending = Suspending::Never;
    assert_eq!(bench.run(vdpa.suspend()), Err(OpError::Timeout));
    assert!(bench.machine.platform.now() < Duration::from_secs(3));
    assert_eq!(vdpa.is_suspended(), Ok(false));
    // It may have stopped in the meantime, so it can be told to go on.
    bench.device.state.lock().suspending = Suspending::Does;
    bench.run(vdpa.resume()).unwrap();
    assert_eq!(vdpa.status(), Ok(running()));
}

#[test]
fn a_device_that_fails_to_stop_is_broken() {
    let (bench, vdpa) = Bench::probed(plan());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.device.state.lock().suspending = Suspending::Fails;
    assert_eq!(bench.run(vdpa.suspend()), Err(OpError::Broken));
    bench.run(vdpa.reset()).unwrap();
    assert_eq!(vdpa.status(), Ok(DeviceStatus::empty()));
}

#[test]
fn the_place_of_a_queue_that_is_enabled_cannot_be_changed() {
    let (bench, vdpa) = Bench::probed(plan());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.run(vdpa.suspend()).unwrap();
    let elsewhere = vdpa::ops::QueueAddress {
        descriptor: DmaAddr(0),
        ..address(0)
    };
    let refused = Err(OpError::Unsupported);
    // SAFETY: the fake has no memory to find there.
    let moved = unsafe { vdpa.set_queue_address(0, elsewhere) };
    assert_eq!(moved, refused);
    let start = QueueState::Split { avail_index: 0 };
    assert_eq!(vdpa.set_queue_state(0, start), refused);
    assert_eq!(bench.run(vdpa.queue_state(0)).map(|_| ()), refused);
    assert_eq!(bench.device.state.lock().queues[0].address(), address(0));
}

#[test]
fn a_device_that_is_pulled_out_while_it_stops_is_gone() {
    let (bench, vdpa) = Bench::probed(plan());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    bench.function.pull_out();
    assert_eq!(bench.run(vdpa.suspend()), Err(OpError::Gone));
}
