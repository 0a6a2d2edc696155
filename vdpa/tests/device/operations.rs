//! The one place that checks: what reaches the parent, and what does not.

use virtio::DeviceStatus;

use vdpa::Features;
use vdpa::ops::{OpError, QueueState};

use crate::world::{World, agreed, negotiate, place_somewhere, start};

#[test]
fn indices_of_queues_are_checked_before_the_parent_sees_them() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        negotiate(&device).await.unwrap();
        w.parent.take_log();
        for queue in [2, 3, u16::MAX] {
            let no_queue = Err(OpError::OutOfRange);
            assert_eq!(device.queue_size_limits(queue).map(|_| ()), no_queue);
            assert_eq!(device.set_queue_size(queue, 64), no_queue);
            assert_eq!(place_somewhere(&device, queue), no_queue);
            assert_eq!(device.set_queue_callback(queue, None), no_queue);
            let start = QueueState::Split { avail_index: 0 };
            assert_eq!(device.set_queue_state(queue, start), no_queue);
            assert_eq!(device.start_queue(queue).await, no_queue);
            assert_eq!(device.queue_ready(queue).map(|_| ()), no_queue);
            assert_eq!(device.doorbell(queue).map(|_| ()), no_queue);
        }
        assert!(w.parent.take_log().is_empty());
    });
}

#[test]
fn only_sizes_that_a_split_queue_can_have_reach_the_parent() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        negotiate(&device).await.unwrap();
        w.parent.take_log();
        for size in [0, 1, 3, 63, 65, 128, u16::MAX] {
            assert_eq!(
                device.set_queue_size(0, size),
                Err(OpError::Invalid),
                "{size}"
            );
        }
        assert!(w.parent.take_log().is_empty());
        for size in [2, 32, 64] {
            assert_eq!(device.set_queue_size(0, size), Ok(()), "{size}");
        }
    });
}

#[test]
fn ranges_outside_the_configuration_do_not_reach_the_parent() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        w.parent.take_log();
        let mut bytes = [0; 13];
        for (offset, len) in [(0, 13), (12, 1), (11, 2), (u32::MAX, 1), (u32::MAX - 3, 12)] {
            let read = device.read_config(offset, &mut bytes[..len]);
            assert_eq!(read, Err(OpError::OutOfRange), "{offset} {len}");
            let write = device.write_config(offset, &bytes[..len]);
            assert_eq!(write, Err(OpError::OutOfRange), "{offset} {len}");
        }
        assert!(w.parent.take_log().is_empty());
        device.write_config(11, &[9]).unwrap();
        device.read_config(0, &mut bytes[..12]).unwrap();
        assert_eq!(bytes[..12], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 9]);
    });
}

#[test]
fn features_that_are_not_offered_are_refused() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        let refused = device.set_driver_features(virtio::net::F::MTU.into());
        assert_eq!(refused, Err(OpError::Invalid));
        assert_eq!(w.parent.accepted(), Features::EMPTY);
    });
}

#[test]
fn a_device_that_does_not_keep_features_ok_has_refused() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        w.parent.refuse_features();
        assert_eq!(negotiate(&device).await, Err(OpError::FeaturesRefused));
        assert_eq!(device.driver_features(), Ok(Features::EMPTY));
        assert_eq!(device.set_queue_size(0, 64), Err(OpError::WrongState));
    });
}

#[test]
fn a_driver_cannot_claim_that_the_device_needs_a_reset() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        let refused = device.set_status(DeviceStatus::DEVICE_NEEDS_RESET).await;
        assert_eq!(refused, Err(OpError::Invalid));
    });
}

#[test]
fn after_a_reset_that_failed_only_a_reset_is_possible() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        start(&device).await.unwrap();
        w.parent.fail_after(0, OpError::Timeout);
        assert_eq!(device.reset().await, Err(OpError::Timeout));
        let status = agreed() | DeviceStatus::DRIVER_OK | DeviceStatus::FAILED;
        assert_eq!(device.set_status(status).await, Err(OpError::WrongState));
        let features = device.set_driver_features(Features::EMPTY);
        assert_eq!(features, Err(OpError::WrongState));
        assert_eq!(start(&device).await, Ok(()));
    });
}

#[test]
fn the_generation_tells_that_the_configuration_has_changed() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        let before = device.config_generation().unwrap();
        assert_eq!(device.config_generation(), Ok(before));
        w.parent.change_config(0, &[1]);
        assert_ne!(device.config_generation(), Ok(before));
    });
}

#[test]
fn queues_are_set_up_by_several_tasks_at_once() {
    let w = World::new();
    let device = w.platform.block_on(async {
        let device = w.hold().await;
        negotiate(&device).await.unwrap();
        std::sync::Arc::new(device)
    });
    for queue in 0..2 {
        let device = std::sync::Arc::clone(&device);
        let set_up = async move {
            device.set_queue_size(queue, 16).unwrap();
            place_somewhere(&device, queue).unwrap();
            device.start_queue(queue).await.unwrap();
        };
        vdpa::Platform::spawn(w.platform.as_ref(), "set up", Box::pin(set_up));
    }
    w.platform.run_until_stalled();
    assert!(w.parent.is_ready(0) && w.parent.is_ready(1));
}
