//! Who has a device: one consumer at a time, of the bus's choice or of the user's.

use vdpa::device::VdpaId;

use crate::world::{Consumer, NET, World};

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
