//! The adapter between the two buses.

use std::sync::Arc;

use vdpa::Features;
use vdpa::device::Removal;
use vdpa::ops::OpError;
use vdpa::testing::HeapDma;

use crate::world::{NET, World};

#[test]
fn a_vdpa_device_becomes_a_device_of_the_virtio_bus() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let setup = w.take();
        assert_eq!(
            setup.device.node().path(),
            "pci0000:00:04.0 -> vdpa0 -> virtio0"
        );
        assert_eq!(setup.device.device_type(), virtio::Id::Net);
        let drivers: Vec<_> = setup
            .device
            .node()
            .chain()
            .iter()
            .map(|node| node.driver())
            .collect();
        let expected = [None, None, Some("virtio_vdpa".into()), Some("test".into())];
        assert_eq!(drivers, expected);
    });
}

#[test]
fn device_types_that_are_no_device_are_refused() {
    for device_type in [0, 37, 200, 255, 256, 257, u32::MAX] {
        let w = World::with_device(HeapDma::new(), device_type, Features::EMPTY);
        w.platform.block_on(async {
            let vdpa = w.bring_up().await;
            assert_eq!(w.vdpa.driver_of(&vdpa), None, "type {device_type}");
            assert!(w.virtio.devices().is_empty());
            assert_eq!(w.virtio.allocate_id().unwrap().number(), 0);
        });
    }
}

#[test]
fn a_device_without_a_driver_waits_on_the_virtio_bus() {
    let w = World::with_device(HeapDma::new(), 4, Features::EMPTY);
    w.platform.block_on(async {
        w.bring_up().await;
        assert_eq!(w.virtio.unmatched(), ["virtio0 virtio:d00000004v0000FA4E"]);
    });
}

#[test]
fn a_virtio_device_lives_as_long_as_somebody_refers_to_it() {
    let w = World::new();
    w.platform.block_on(async {
        let vdpa = w.bring_up().await;
        let held = Arc::clone(&w.virtio.devices()[0]);
        w.vdpa.remove_driver("virtio_vdpa").await;
        assert!(w.virtio.devices().is_empty());
        assert_eq!(held.check(), Err(OpError::Gone));
        assert_eq!(
            w.virtio.allocate_id().unwrap().number(),
            1,
            "its name is not used again"
        );
        drop(held);
        assert_eq!(w.virtio.allocate_id().unwrap().number(), 0);
        assert_eq!(w.vdpa.driver_of(&vdpa), None);
    });
}

#[test]
fn every_step_of_a_bring_up_that_fails_leaves_all_queues_down_and_no_memory_out() {
    for step in 0.. {
        let w = World::new();
        let happened = w.platform.block_on(async {
            w.parent.fail_after(step, OpError::Invalid);
            let vdpa = w.bring_up().await;
            let happened = !w.parent.take_fault();
            assert_eq!(w.is_bound(), !happened, "step {step}");
            if happened {
                assert!(
                    !w.parent.is_ready(0) && !w.parent.is_ready(1),
                    "step {step}"
                );
                assert!(w.parent.status().is_empty(), "step {step}");
                assert_eq!(w.outstanding(), 0, "step {step}");
                w.vdpa.rescan().await;
                w.virtio.rescan().await;
                assert!(w.is_bound(), "step {step}: the next attempt works");
            }
            w.vdpa.unregister(&vdpa, Removal::Orderly).await;
            happened
        });
        w.platform.run_until_stalled();
        assert_eq!(w.outstanding(), 0, "step {step}");
        assert_eq!(w.parent.frees(), 1, "step {step}");
        assert_eq!(w.platform.tasks(), [""; 0], "step {step}");
        if !happened {
            assert!(step >= 15, "a bring-up has more steps than {step}");
            return;
        }
    }
}

#[test]
fn a_bring_up_without_memory_fails_cleanly_however_much_there_was() {
    let enough = {
        let w = World::new();
        w.platform.block_on(w.bring_up());
        w.outstanding()
    };
    for bytes in (0..enough).step_by(16) {
        let w = World::with_device(HeapDma::limited(bytes), NET, Features::EMPTY);
        w.platform.block_on(async {
            let vdpa = w.bring_up().await;
            if w.is_bound() {
                return;
            }
            assert_eq!(w.outstanding(), 0, "{bytes} bytes");
            assert!(
                !w.parent.is_ready(0) && !w.parent.is_ready(1),
                "{bytes} bytes"
            );
            w.vdpa.unregister(&vdpa, Removal::Orderly).await;
        });
        assert_eq!(w.parent.frees(), usize::from(w.virtio.devices().is_empty()));
    }
}
