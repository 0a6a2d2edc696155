//! How a client is taken down: in which order, and whatever state it has left.

use std::sync::Arc;

use vdpa::ops::OpError;
use vdpa::testing::{Resets, Translation};
use vhost_vdpa::{OpenOptions, VhostError};
use virtq::Event;

use crate::world::{FIRST, World, set_up, start, translating, update, update_in};

/// Where in the log a step is found first.
fn position(log: &[String], step: &str) -> usize {
    log.iter()
        .position(|entry| entry.starts_with(step))
        .unwrap_or_else(|| panic!("no {step} in {log:?}"))
}

#[test]
fn queues_stop_then_callbacks_go_then_the_device_is_reset_then_memory_goes() {
    for (translation, unmap) in [
        (Translation::Incremental, "reset_map(0)"),
        (Translation::Whole, "reset_map(0)"),
    ] {
        let world = World::with(translating(translation));
        let handle = world.owner();
        handle.message(update(&world.memory(4096), FIRST)).unwrap();
        handle
            .set_vring_call(0, Some(Arc::<Event>::default()))
            .unwrap();
        world.run(start(&handle)).unwrap();
        world.log();
        world.run(handle.close()).unwrap();
        let log = world.log();
        let order = [
            position(&log, "set_queue_ready(0, false)"),
            position(&log, "clear_queue_callback(0)"),
            position(&log, "reset"),
            position(&log, unmap),
        ];
        assert!(order.is_sorted(), "{log:?}");
        assert!(world.parent.mapped(0).is_empty());
        assert_eq!(world.device.owner(), None);
    }
}

#[test]
fn a_handle_that_is_dropped_with_everything_running_leaves_nothing() {
    let world = World::new();
    let before = world.platform.heap().outstanding();
    let (kick, call, err) = <(Arc<Event>, Arc<Event>, Arc<Event>)>::default();
    {
        let handle = world.owner();
        let memory = world.memory(4096);
        handle.message(update(&memory, FIRST)).unwrap();
        handle.message(update_in(2, &memory, FIRST)).unwrap();
        world
            .run(handle.set_vring_kick(0, Some(Arc::clone(&kick))))
            .unwrap();
        handle.set_vring_call(0, Some(Arc::clone(&call))).unwrap();
        handle.set_vring_err(0, Some(Arc::clone(&err))).unwrap();
        world.run(start(&handle)).unwrap();
        world.run(set_up(&handle, 1)).unwrap();
    }
    world.platform.run_until_stalled();
    assert!(world.platform.tasks().is_empty());
    assert_eq!(world.platform.heap().outstanding(), before);
    assert!(world.parent.mapped(0).is_empty() && world.parent.mapped(2).is_empty());
    for event in [kick, call, err] {
        assert_eq!(Arc::strong_count(&event), 1, "nobody keeps the events");
    }
    drop(world.open());
}

#[test]
fn a_request_that_is_never_polled_again_holds_nobody_up() {
    let world = World::new();
    let handle = Arc::new(world.owner());
    let same = Arc::clone(&handle);
    let mut request = Box::pin(async move { start(&same).await });
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(request.as_mut().poll(&mut cx).is_pending());
    // The first step is under way; the client forgets about it, but keeps the future.
    world.run(world.bus.remove_driver("vhost_vdpa"));
    assert!(handle.is_hung_up());
    drop(request);
}

#[test]
fn a_request_that_is_dropped_half_way_is_carried_out_and_the_next_one_gets_its_own_answer() {
    let world = World::new();
    let handle = world.owner();
    {
        let mut request = std::pin::pin!(handle.set_status(virtio::DeviceStatus::ACKNOWLEDGE));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(request.as_mut().poll(&mut cx).is_pending());
    }
    let wrong = virtio::DeviceStatus::DEVICE_NEEDS_RESET;
    assert_eq!(
        world.run(handle.set_status(wrong)),
        Err(VhostError::Invalid)
    );
    assert_eq!(handle.status(), Ok(virtio::DeviceStatus::ACKNOWLEDGE));
}

#[test]
fn a_device_that_does_not_reset_keeps_its_memory_until_it_does() {
    let world = World::new();
    let before = world.platform.heap().outstanding();
    let handle = world.owner();
    handle.message(update(&world.memory(4096), FIRST)).unwrap();
    world.run(start(&handle)).unwrap();
    world.parent.set_resets(Resets::Never);
    assert_eq!(world.run(handle.close()), Err(VhostError::Timeout));
    assert_eq!(world.platform.heap().outstanding(), before + 4096);
    assert!(!world.parent.mapped(0).is_empty());
    assert_eq!(
        world.open_with(OpenOptions::default()).unwrap_err(),
        VhostError::Timeout
    );
    world.parent.set_resets(Resets::Promptly);
    let next = world.open();
    assert_eq!(world.platform.heap().outstanding(), before);
    assert!(world.parent.mapped(0).is_empty());
    world.run(next.close()).unwrap();
}

#[test]
fn whatever_fails_while_a_device_is_opened_leaves_it_free() {
    let world = World::new();
    let free = world.platform.heap().outstanding();
    let mut failures = 0;
    for skip in 0.. {
        world.parent.fail_after(skip, OpError::OutOfResources);
        let opened = world.open_with(OpenOptions::default());
        let happened = !world.parent.take_fault();
        match opened {
            Ok(handle) => {
                assert!(!happened || failures > 0);
                drop(handle);
                world.platform.run_until_stalled();
                if !happened {
                    break;
                }
            }
            Err(error) => {
                assert!(happened);
                assert_eq!(error, VhostError::OutOfResources);
                failures += 1;
            }
        }
        world.platform.run_until_stalled();
        assert_eq!(world.device.owner(), None, "after failure {skip}");
        assert_eq!(world.platform.heap().outstanding(), free);
        assert!(world.platform.tasks().is_empty());
        drop(world.open());
        world.platform.run_until_stalled();
    }
    assert!(failures > 0);
}
