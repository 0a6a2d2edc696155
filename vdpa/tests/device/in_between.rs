//! What is not allowed while something else is under way, and what is known when nobody has waited
//! for its end.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use virtio::DeviceStatus;

use vdpa::device::{AttachError, Removed, VdpaClaim};
use vdpa::dma::{Owner, Trust};
use vdpa::ops::OpError;

use crate::world::{World, agreed, negotiate, place_somewhere, start};

/// Begins something that the device takes its time for.
fn begin<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    let first = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(first, Poll::Pending), "it takes no time");
    future
}

fn running() -> DeviceStatus {
    agreed() | DeviceStatus::DRIVER_OK
}

#[test]
fn no_queue_is_set_up_while_the_device_starts() {
    let w = World::new();
    let device = w.platform.block_on(w.hold());
    w.platform.block_on(negotiate(&device)).unwrap();
    w.parent.be_slow();
    let starting = begin(device.set_status(running()));
    let refused = Err(OpError::WrongState);
    assert_eq!(device.set_queue_size(0, 16), refused);
    assert_eq!(place_somewhere(&device, 0), refused);
    let moving = begin(device.set_group_space(0, 0));
    // Even if nobody waits for the end: the device may have started.
    drop(starting);
    assert_eq!(device.set_queue_size(0, 16), refused);
    assert_eq!(w.platform.block_on(moving), refused);
    w.platform.block_on(device.reset()).unwrap();
    w.platform.block_on(start(&device)).unwrap();
}

#[test]
fn features_are_fixed_while_they_are_agreed_on() {
    let w = World::new();
    let device = w.platform.block_on(w.hold());
    w.parent.be_slow();
    let agreeing = begin(device.set_status(agreed()));
    let features = virtio::F::VERSION_1.into();
    let refused = Err(OpError::WrongState);
    assert_eq!(device.set_driver_features(features), refused);
    w.platform.block_on(agreeing).unwrap();
    assert_eq!(device.set_driver_features(features), refused);
}

#[test]
fn a_device_that_is_stopping_is_not_suspended_yet() {
    let w = World::new();
    let device = w.platform.block_on(w.hold());
    w.platform.block_on(start(&device)).unwrap();
    w.parent.be_slow();
    let stopping = begin(device.suspend());
    assert_still_running(&device);
    let asking = begin(device.queue_state(0));
    drop(stopping);
    assert_eq!(w.platform.block_on(asking), Err(OpError::WrongState));
    assert_still_running(&device);
    // It can be told again, either way.
    w.platform.block_on(device.suspend()).unwrap();
    assert_eq!(device.is_suspended(), Ok(true));
    assert_eq!(place_somewhere(&device, 0), Ok(()));
    drop(begin(device.resume()));
    assert_still_running(&device);
    let state = w.platform.block_on(device.queue_state(0));
    assert_eq!(state, Err(OpError::WrongState));
    w.platform.block_on(device.resume()).unwrap();
    assert!(!w.parent.is_suspended());
}

fn assert_still_running(device: &VdpaClaim) {
    let refused = Err(OpError::WrongState);
    assert_eq!(device.is_suspended(), Ok(false));
    assert_eq!(place_somewhere(device, 0), refused);
}

#[test]
fn a_parent_that_never_answers_holds_nobody_up() {
    let w = World::new();
    let device = w.platform.block_on(w.hold());
    w.platform.block_on(start(&device)).unwrap();
    w.platform.block_on(device.suspend()).unwrap();
    w.parent.be_stuck();
    let late = Err(OpError::Timeout);
    w.platform.block_on(async {
        assert_eq!(device.queue_state(0).await.map(drop), late);
        assert_eq!(device.resume().await, late);
        assert_eq!(device.suspend().await, late);
        assert_eq!(device.stop_queue(0).await, late);
        assert_eq!(
            device.set_status(running() | DeviceStatus::FAILED).await,
            late
        );
        assert_eq!(device.reset().await, late);
        assert!(device.is_lost());
        // Nobody knows what it does with the memory of its queue.
        let removed = w.unregister(&device).await;
        assert_eq!(removed, Removed::Leaked { queues: 1 });
    });
}

#[test]
fn a_parent_that_never_answers_starts_nothing() {
    let w = World::new();
    let device = w.platform.block_on(w.hold());
    w.platform.block_on(negotiate(&device)).unwrap();
    device.set_queue_size(0, 64).unwrap();
    place_somewhere(&device, 0).unwrap();
    w.parent.be_stuck();
    let late = Err(OpError::Timeout);
    w.platform.block_on(async {
        assert_eq!(device.set_group_space(0, 0).await, late);
        assert_eq!(device.start_queue(0).await, late);
        let attached = device.attach(Owner::Kernel, Trust::Isolated);
        assert_eq!(attached.err(), Some(AttachError::WrongState));
    });
}
