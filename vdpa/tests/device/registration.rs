//! How a device comes to the bus, and what is left if it does not.

use std::sync::Arc;

use vdpa::bus::AddError;
use vdpa::device::{DeviceKind, RegisterError, VdpaId};
use vdpa::testing::FakeParent;

use crate::world::{Consumer, NET, World};

#[test]
fn a_device_is_named_and_hangs_below_its_parent() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.register().await;
        assert_eq!(device.node().path(), "pci0000:00:04.0 -> vdpa0");
        assert!(matches!(device.kind(), DeviceKind::Pf));
        assert_eq!(w.bus.unmatched(), ["vdpa0 vdpa:d00000001v0000FA4E"]);
    });
}

#[test]
fn parent_and_dma_device_are_kept_apart() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.register().await;
        assert!(Arc::ptr_eq(&device.node().parent().unwrap(), &w.function));
        assert!(Arc::ptr_eq(device.dma_device(), &w.root));
    });
}

#[test]
fn operations_are_freed_once_and_before_the_index_is_used_again() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.register().await;
        w.unregister(&device).await;
        assert_eq!(w.parent.frees(), 0, "somebody still refers to it");
        let second = w.register().await;
        assert_eq!(second.node().name(), "vdpa1");
        let bus = Arc::clone(&w.bus);
        w.parent.on_free(move || {
            let next = bus.allocate_id().unwrap();
            assert_eq!(next.number(), 2, "the index of the device is still taken");
        });
        drop(device);
        assert_eq!(w.parent.frees(), 1);
        assert_eq!(w.register().await.node().name(), "vdpa0");
    });
}

#[test]
fn a_queue_that_cannot_have_its_smallest_size_is_refused() {
    let w = World::new();
    let parent = FakeParent::new(&w.platform, NET, vdpa::Features::EMPTY, &[64, 1], &[]);
    w.platform.block_on(async {
        let refused = w.bus.register(parent.ops(), w.config()).await;
        assert_eq!(refused.unwrap_err(), RegisterError::BadQueueSize);
    });
    assert_eq!(parent.frees(), 1);
    assert!(w.function.children().is_empty());
    assert_eq!(w.bus.allocate_id().unwrap().number(), 0);
}

#[test]
fn a_bus_that_is_closed_takes_no_device_and_keeps_nothing_of_it() {
    let w = World::new();
    w.bus.close().unwrap();
    w.platform.block_on(async {
        let refused = w.bus.register(w.parent.ops(), w.config()).await;
        assert_eq!(refused.unwrap_err(), RegisterError::Bus(AddError::Closed));
    });
    assert_eq!(w.parent.frees(), 1);
    assert!(w.function.children().is_empty());
    assert_eq!(w.bus.allocate_id().unwrap().number(), 0);
}

#[test]
fn one_parent_has_hundreds_of_devices() {
    let w = World::new();
    w.platform.block_on(async {
        w.bus
            .add_driver(Consumer::new("consumer", vec![VdpaId::Any]))
            .await
            .unwrap();
        let mut devices = Vec::new();
        for _ in 0..512 {
            let parent = FakeParent::new(&w.platform, NET, vdpa::Features::EMPTY, &[64], &[]);
            devices.push(w.bus.register(parent.ops(), w.config()).await.unwrap());
        }
        assert_eq!(w.function.children().len(), 512);
        assert!(w.bus.unmatched().is_empty());
        for device in devices {
            w.unregister(&device).await;
        }
        assert!(w.function.children().is_empty());
        w.bus.close().unwrap();
    });
}

#[test]
fn every_step_of_a_probe_that_fails_leaves_the_world_as_it_was() {
    for step in 0.. {
        let w = World::new();
        let happened = w.platform.block_on(async {
            w.bus
                .add_driver(Consumer::new("consumer", vec![VdpaId::Any]))
                .await
                .unwrap();
            w.parent.fail_after(step, vdpa::ops::OpError::Timeout);
            let device = w.register().await;
            let happened = !w.parent.take_fault();
            assert_eq!(w.bus.driver_of(&device).is_none(), happened, "step {step}");
            if happened {
                assert!(w.parent.status().is_empty(), "step {step}: it is at rest");
                assert!(!w.parent.is_ready(0), "step {step}: no queue is left ready");
                w.bus.rescan().await;
                assert_eq!(
                    w.bus.driver_of(&device).as_deref(),
                    Some("consumer"),
                    "step {step}"
                );
            }
            w.unregister(&device).await;
            happened
        });
        assert_eq!(w.parent.frees(), 1, "step {step}");
        assert_eq!(w.bus.allocate_id().unwrap().number(), 0, "step {step}");
        if !happened {
            assert!(step >= 8, "a probe has more steps than {step}");
            return;
        }
    }
}

#[test]
fn a_name_of_its_own_is_used_once_and_passed_over_by_the_others() {
    let w = World::new();
    let named = |name: &str| vdpa::device::VdpaDeviceConfig {
        name: Some(name.to_owned()),
        ..w.config()
    };
    w.platform.block_on(async {
        let first = w
            .bus
            .register(w.parent.ops(), named("vdpa1"))
            .await
            .unwrap();
        assert_eq!(first.node().name(), "vdpa1");
        let second = w.register().await;
        // Number 0 is the first device's, although it does not show.
        assert_eq!(second.node().name(), "vdpa2");
        let again = w.bus.register(w.parent.ops(), named("vdpa1")).await;
        assert_eq!(again.unwrap_err(), RegisterError::Bus(AddError::NameTaken));
        let nameless = w.bus.register(w.parent.ops(), named("")).await;
        assert_eq!(nameless.unwrap_err(), RegisterError::Bus(AddError::BadName));
        w.unregister(&first).await;
        drop(first);
        let names = [w.register().await, w.register().await];
        let names = names.each_ref().map(|device| device.node().name());
        assert_eq!(names, ["vdpa0", "vdpa1"]);
    });
    assert_eq!(w.function.children().len(), 3);
}
