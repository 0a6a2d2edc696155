//! The one removal sequence: its order, its cases, and what is left when a device does not
//! cooperate.

use std::sync::Arc;
use std::time::Duration;

use virtio::DeviceStatus;

use vdpa::Features;
use vdpa::Platform;
use vdpa::device::{Removed, VdpaClaim, VdpaId};
use vdpa::ops::OpError;
use vdpa::testing::Resets;

use crate::world::{Consumer, World, place_somewhere, start};

#[test]
fn a_removal_goes_from_the_consumer_down_to_the_workers() {
    let w = World::new();
    w.platform.block_on(async {
        let consumer = Consumer::new("consumer", vec![VdpaId::Any]);
        w.bus.add_driver(Arc::clone(&consumer) as _).await.unwrap();
        let device = w.register().await;
        w.parent.take_log();
        assert_eq!(w.unregister(&device).await, Removed::Clean);
        assert_eq!(
            *consumer.answers.lock().unwrap(),
            ["gone"],
            "the consumer was told at once"
        );
        let expected = [
            "set_queue_ready(0, false)",
            "clear_queue_callback(0)",
            "clear_queue_callback(1)",
            "clear_config_callback",
            "reset",
            "stop_workers",
        ];
        assert_eq!(w.parent.take_log(), expected);
        assert!(w.bus.devices().is_empty());
        assert!(w.function.children().is_empty());
    });
}

#[test]
fn the_sequence_is_the_same_whoever_takes_the_device_off_the_bus() {
    let w = World::new();
    w.platform.block_on(async {
        let consumer = Consumer::keeping("consumer");
        w.bus.add_driver(Arc::clone(&consumer) as _).await.unwrap();
        let device = w.register().await;
        w.bus.remove_device(&device).await;
        assert_eq!(*consumer.answers.lock().unwrap(), ["gone"]);
        assert_eq!(w.parent.take_log().last().unwrap(), "stop_workers");
        let claim = consumer.kept().unwrap();
        assert_gone(&claim).await;
    });
}

#[test]
fn a_device_that_has_disappeared_is_not_touched() {
    let w = World::new();
    w.platform.block_on(async {
        w.bus
            .add_driver(Consumer::new("consumer", vec![VdpaId::Any]))
            .await
            .unwrap();
        let device = w.register().await;
        w.parent.take_log();
        assert_eq!(
            w.bus.unregister(&device, crate::world::surprise()).await,
            Removed::Clean
        );
        let log = w.parent.take_log();
        assert!(
            !log.iter()
                .any(|entry| entry.contains("reset") || entry.contains("set_"))
        );
        assert!(log.contains(&String::from("stop_workers")));
    });
}

#[test]
fn a_device_that_answers_nothing_any_more_leaks_nothing() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        start(&device).await.unwrap();
        // After `set_queue_ready`.
        w.parent.fail_after(1, OpError::Gone);
        assert_eq!(w.unregister(&device).await, Removed::Clean);
        assert!(!w.parent.take_fault());
    });
}

#[test]
fn a_device_that_does_not_reset_is_removed_all_the_same_and_its_queues_are_counted() {
    let w = World::new();
    w.platform.block_on(async {
        w.bus
            .add_driver(Consumer::new("consumer", vec![VdpaId::Any]))
            .await
            .unwrap();
        let device = w.register().await;
        w.parent.set_resets(Resets::Never);
        let before = w.platform.now();
        assert_eq!(w.unregister(&device).await, Removed::Leaked { queues: 1 });
        assert!(
            w.platform.now() - before <= Duration::from_secs(1),
            "it is waited for once"
        );
        assert!(w.bus.devices().is_empty());
        let report = device.node().report().unwrap();
        assert!(
            report.facts.contains(&("queues leaked", String::from("1"))),
            "{report:?}"
        );
        drop(device);
        assert_eq!(w.parent.frees(), 1);
    });
}

#[test]
fn queues_that_are_lost_to_a_device_are_counted_once() {
    let w = World::new();
    w.platform.block_on(async {
        w.bus
            .add_driver(Consumer::new("consumer", vec![VdpaId::Any]))
            .await
            .unwrap();
        let device = w.register().await;
        w.parent.set_resets(Resets::Never);
        w.bus.remove_driver("consumer").await;
        assert_eq!(w.unregister(&device).await, Removed::Leaked { queues: 1 });
    });
}

#[test]
fn every_operation_of_a_removed_device_answers_gone() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        w.unregister(&device).await;
        w.parent.take_log();
        assert_gone(&device).await;
        assert_eq!(device.reset().await, Err(OpError::Gone));
        assert!(w.parent.take_log().is_empty());
    });
}

async fn assert_gone(device: &VdpaClaim) {
    let gone = Err(OpError::Gone);
    assert_eq!(device.status().map(|_| ()), gone);
    assert_eq!(device.set_status(DeviceStatus::ACKNOWLEDGE).await, gone);
    assert_eq!(device.device_features().map(|_| ()), gone);
    assert_eq!(device.driver_features().map(|_| ()), gone);
    assert_eq!(device.set_driver_features(Features::EMPTY), gone);
    assert_eq!(device.queue_size_limits(0).map(|_| ()), gone);
    assert_eq!(device.set_queue_size(0, 64), gone);
    assert_eq!(place_somewhere(device, 0), gone);
    assert_eq!(device.set_queue_callback(0, None), gone);
    assert_eq!(device.start_queue(0).await, gone);
    assert_eq!(device.queue_ready(0).map(|_| ()), gone);
    assert_eq!(device.doorbell(0).map(|_| ()), gone);
    assert_eq!(device.set_config_callback(None), gone);
    assert_eq!(device.config_size().map(|_| ()), gone);
    assert_eq!(device.read_config(0, &mut [0]), gone);
    assert_eq!(device.write_config(0, &[0]), gone);
    assert_eq!(device.config_generation().map(|_| ()), gone);
}

#[test]
fn two_removals_at_once_stop_the_workers_once() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.hold().await;
        start(&device).await.unwrap();
        w.parent.set_resets(Resets::Never);
        let (bus, other) = (Arc::clone(&w.bus), Arc::clone(&device));
        let removal = async move {
            bus.unregister(&other, crate::world::surprise()).await;
        };
        w.platform.spawn("removal", Box::pin(removal));
        w.unregister(&device).await;
        w.platform.run_until_stalled();
        let log = w.parent.take_log();
        assert_eq!(
            log.iter().filter(|entry| *entry == "stop_workers").count(),
            1
        );
        assert!(w.bus.devices().is_empty());
    });
}

#[test]
fn removing_the_consumer_leaves_the_device_at_rest_on_the_bus() {
    let w = World::new();
    w.platform.block_on(async {
        let consumer = Consumer::new("consumer", vec![VdpaId::Any]);
        w.bus.add_driver(Arc::clone(&consumer) as _).await.unwrap();
        let device = w.register().await;
        w.bus.remove_driver("consumer").await;
        assert_eq!(*consumer.answers.lock().unwrap(), ["present"]);
        assert_eq!(device.status(), Ok(DeviceStatus::empty()));
        assert_eq!(device.queue_ready(0), Ok(false));
        assert_eq!(w.bus.devices().len(), 1);
    });
}
