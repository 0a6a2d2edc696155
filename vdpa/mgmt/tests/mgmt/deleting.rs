//! Deleting devices and changing them.

use vdpa::device::Removed;
use vdpa::ops::OpError;
use vdpa::testing::Resets;
use vdpa_mgmt::{Attributes, MacAddress, MgmtError};

use crate::world::{BLOCK, NET, World, negotiate};

#[test]
fn a_device_that_was_added_can_be_deleted_and_its_name_used_again() {
    let w = World::new();
    w.run(async {
        let workshop = w.open("net", &[NET]).await;
        for round in 0..3 {
            let device = w.add("foo", "net", Attributes::default()).await.unwrap();
            assert_eq!(w.management.delete("foo").await, Ok(Removed::Clean));
            assert_eq!(device.status(), Err(OpError::Gone));
            drop(device);
            assert_eq!(workshop.made.lock().unwrap()[round].2.frees(), 1);
            assert_eq!(w.management.delete("foo").await, Err(MgmtError::NoDevice));
        }
        assert!(w.bus.devices().is_empty());
    });
}

#[test]
fn a_device_that_came_by_itself_cannot_be_deleted() {
    let w = World::new();
    w.run(async {
        let device = w.plug("0000:00:04.0", NET).await;
        assert_eq!(
            w.management.delete("vdpa0").await,
            Err(MgmtError::NotCreated)
        );
        assert!(device.status().is_ok());
    });
}

#[test]
fn a_device_that_does_not_stop_is_deleted_all_the_same_and_told() {
    let w = World::new();
    w.run(async {
        let workshop = w.open("net", &[NET]).await;
        let device = w.add("foo", "net", Attributes::default()).await.unwrap();
        let device = negotiate(&w, &device).await;
        device.set_queue_size(0, 64).unwrap();
        // SAFETY: the fake has no memory to find there.
        unsafe { device.set_queue_address(0, somewhere()) }.unwrap();
        device.start_queue(0).await.unwrap();
        workshop.made.lock().unwrap()[0].2.set_resets(Resets::Never);
        assert_eq!(
            w.management.delete("foo").await,
            Ok(Removed::Leaked { queues: 1 })
        );
        assert_eq!(
            w.management.devices(Some("foo")).await,
            Err(MgmtError::NoDevice)
        );
    });
}

fn somewhere() -> vdpa::ops::QueueAddress {
    use virtq::DmaAddr;
    vdpa::ops::QueueAddress {
        descriptor: DmaAddr(0x1000),
        driver: DmaAddr(0x2000),
        device: DmaAddr(0x3000),
    }
}

#[test]
fn hundreds_of_devices_come_and_go() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        for round in 0..2 {
            for number in 0..512 {
                let name = format!("sim{number}");
                w.add(&name, "net", Attributes::default()).await.unwrap();
            }
            assert_eq!(
                w.management.devices(None).await.unwrap().len(),
                512,
                "round {round}"
            );
            for number in (0..512).rev() {
                let deleted = w.management.delete(&format!("sim{number}")).await;
                assert_eq!(deleted, Ok(Removed::Clean));
            }
            assert!(w.bus.devices().is_empty());
        }
    });
    w.bus.close().unwrap();
}

#[test]
fn only_the_address_of_a_network_device_that_was_added_can_be_set() {
    let w = World::new();
    w.run(async {
        let net = w.open("net", &[NET]).await;
        w.open("blk", &[BLOCK]).await;
        w.plug("0000:00:04.0", NET).await;
        w.add("foo", "net", Attributes::default()).await.unwrap();
        w.add("disk", "blk", Attributes::default()).await.unwrap();
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let group = MacAddress([3, 0, 0, 0, 0, 9]);
        for (name, mac, expected) in [
            ("foo", mac, Ok(())),
            ("foo", group, Err(MgmtError::NotUnicast)),
            ("foo", MacAddress([0; 6]), Err(MgmtError::NotUnicast)),
            ("disk", mac, Err(MgmtError::Unsupported)),
            ("vdpa0", mac, Err(MgmtError::Unsupported)),
            ("nobody", mac, Err(MgmtError::NoDevice)),
        ] {
            assert_eq!(
                w.management.set_mac(name, mac).await,
                expected,
                "{name} {mac}"
            );
        }
        assert_eq!(*net.set.lock().unwrap(), [mac]);
    });
}
