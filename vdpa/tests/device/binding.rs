//! Who has a device: one consumer at a time, of the bus's choice or of the user's.

use std::sync::Arc;

use vdpa::Features;
use vdpa::bus::AddError;
use vdpa::device::{AttachError, VdpaBus, VdpaClaim, VdpaId};
use vdpa::dma::{Owner, Trust};
use vdpa::keeper::hold;
use vdpa::ops::{OpError, QueueState};
use virtio::DeviceStatus;

use crate::world::{Consumer, NET, World, agreed, place_somewhere};

#[test]
fn a_device_goes_from_one_consumer_to_another_and_back_through_a_reset() {
    let w = World::new();
    w.platform.block_on(async {
        w.bus
            .add_driver(Consumer::new("virtio_vdpa", vec![VdpaId::Any]))
            .await
            .unwrap();
        w.bus
            .add_driver(Consumer::new("vhost_vdpa", vec![VdpaId::Any]))
            .await
            .unwrap();
        let device = w.register().await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("virtio_vdpa"));
        for consumer in ["vhost_vdpa", "virtio_vdpa"] {
            w.parent.take_log();
            w.bus.set_override(&device, Some(consumer)).await;
            assert_eq!(w.bus.driver_of(&device).as_deref(), Some(consumer));
            let log = w.parent.take_log();
            let reset = log.iter().position(|entry| entry == "reset").unwrap();
            let started = log
                .iter()
                .position(|entry| entry == "set_status(0xf)")
                .unwrap();
            assert!(reset < started, "{log:?}");
        }
    });
}

#[test]
fn a_consumer_of_one_device_type_is_preferred_to_one_of_any() {
    let w = World::new();
    w.platform.block_on(async {
        w.bus
            .add_driver(Consumer::new("any", vec![VdpaId::Any]))
            .await
            .unwrap();
        w.bus
            .add_driver(Consumer::new("block", vec![VdpaId::Type(2)]))
            .await
            .unwrap();
        w.bus
            .add_driver(Consumer::new("net", vec![VdpaId::Type(NET)]))
            .await
            .unwrap();
        let device = w.register().await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("net"));
    });
}

/// Everything that changes a device, by a claim of it.
async fn assert_not_owner(claim: &VdpaClaim) {
    let refused = Err(OpError::NotOwner);
    let start = QueueState::Split { avail_index: 0 };
    assert!(!claim.is_valid());
    assert_eq!(claim.reset().await, refused);
    assert_eq!(claim.set_status(DeviceStatus::ACKNOWLEDGE).await, refused);
    assert_eq!(claim.set_driver_features(Features::EMPTY), refused);
    assert_eq!(claim.suspend().await, refused);
    assert_eq!(claim.resume().await, refused);
    assert_eq!(claim.write_config(0, &[0]), refused);
    assert_eq!(claim.set_config_callback(None), refused);
    assert_eq!(claim.set_queue_size(0, 64), refused);
    assert_eq!(place_somewhere(claim, 0), refused);
    assert_eq!(claim.set_queue_state(0, start), refused);
    assert_eq!(claim.queue_state(0).await.map(drop), refused);
    assert_eq!(claim.set_queue_callback(0, None), refused);
    assert_eq!(claim.start_queue(0).await, refused);
    assert_eq!(claim.stop_queue(0).await, refused);
    assert_eq!(claim.doorbell(0).map(drop), refused);
    assert_eq!(claim.set_group_space(0, 0).await, refused);
    claim.quiesce().await;
    let attached = claim.attach(Owner::Kernel, Trust::Isolated);
    assert_eq!(attached.err(), Some(AttachError::NotOwner));
}

#[test]
fn a_claim_that_a_driver_keeps_is_worth_nothing_after_the_bind() {
    let w = World::new();
    w.platform.block_on(async {
        let first = Consumer::keeping("first");
        let second = Consumer::new("second", vec![VdpaId::Any]);
        w.bus.add_driver(Arc::clone(&first) as _).await.unwrap();
        w.bus.add_driver(second).await.unwrap();
        let device = w.register().await;
        let kept = first.kept().unwrap();
        assert!(kept.is_valid());
        w.bus.set_override(&device, Some("second")).await;
        w.parent.take_log();
        // While somebody else has the device,
        assert_not_owner(&kept).await;
        assert_eq!(w.parent.take_log(), Vec::<String>::new());
        assert_eq!(device.status(), Ok(agreed() | DeviceStatus::DRIVER_OK));
        // and while nobody has it.
        w.bus.remove_driver("second").await;
        w.parent.take_log();
        assert_not_owner(&kept).await;
        assert_eq!(w.parent.take_log(), Vec::<String>::new());
    });
}

#[test]
fn what_was_attached_through_a_claim_ends_with_it() {
    let w = World::new();
    w.platform.block_on(async {
        let first = w.hold().await;
        let kept = first.attach(Owner::Kernel, Trust::Isolated).unwrap();
        w.bus.set_override(&first, None).await;
        let consumer = Consumer::keeping("consumer");
        w.bus.add_driver(Arc::clone(&consumer) as _).await.unwrap();
        w.bus.set_override(&first, Some("consumer")).await;
        let second = consumer.kept().unwrap();
        second.reset().await.unwrap();
        let attached = second.attach(Owner::Client, Trust::Isolated);
        assert_eq!(attached.err(), Some(AttachError::NoIsolation));
        let attached = second.attach(Owner::Kernel, Trust::Isolated).unwrap();
        assert_eq!(kept.reset_map(0), Err(OpError::NotOwner));
        assert_eq!(attached.reset_map(0), Ok(()));
    });
}

#[test]
fn a_device_is_on_one_bus_at_a_time() {
    let w = World::new();
    w.platform.block_on(async {
        let other = VdpaBus::new("theirs");
        let thief = Consumer::keeping("thief");
        other.add_driver(Arc::clone(&thief) as _).await.unwrap();
        let device = w.hold().await;
        let added = other.add_device(Arc::clone(&device)).await;
        assert_eq!(added, Err(AddError::OnABus));
        assert!(thief.kept().is_none());
        assert!(hold(&other, &device).await.is_none());
        assert!(device.is_valid());
        // What has left its bus can be put anywhere, and does nothing there.
        w.unregister(&device).await;
        other.add_device(Arc::clone(&device)).await.unwrap();
        assert_eq!(device.reset().await, Err(OpError::Gone));
        assert!(thief.kept().is_none());
    });
}
