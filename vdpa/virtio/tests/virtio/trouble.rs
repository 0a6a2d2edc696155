//! Devices that break, ask for a reset, do not reset, or go.

use std::time::Duration;

use vdpa::Platform;
use vdpa::device::{Removal, Removed};
use vdpa::ops::OpError;
use vdpa::testing::Resets;
use virtio::DeviceStatus;
use virtq::{DmaBuffer, Writable};

use crate::world::{Setup, World};

/// Gives the device a buffer that it does not return.
fn lend(setup: &mut Setup) {
    let buffer = DmaBuffer::new(&setup.device.dma(), 4096).expect("memory is plenty");
    setup
        .first
        .ring
        .add(Writable(buffer))
        .expect("the queue is empty");
    setup.first.kick();
}

fn assert_everybody_is_woken(setup: &Setup) {
    assert!(
        setup.first.event.take(),
        "who waits for the first queue is woken"
    );
    assert!(
        setup.second.event.take(),
        "who waits for the second queue is woken"
    );
    assert!(
        setup.device.config_event().take(),
        "who waits for the configuration is woken"
    );
}

#[test]
fn a_device_that_asks_for_a_reset_is_broken_for_every_waiter() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let setup = w.take();
        assert_eq!(setup.device.check(), Ok(()));
        w.parent.demand_reset();
        w.platform.run_until_stalled();
        assert_eq!(setup.device.check(), Err(OpError::Broken));
        assert_everybody_is_woken(&setup);
        assert!(w.parent.status().contains(DeviceStatus::FAILED));
        setup.device.reset().await.unwrap();
    });
}

#[test]
fn a_device_that_vanishes_without_a_word_is_gone_for_every_waiter() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let mut setup = w.take();
        lend(&mut setup);
        w.platform.sleep(Duration::from_secs(5)).await;
        assert_eq!(setup.device.check(), Ok(()), "a device may take its time");
        assert!(!setup.device.config_event().take(), "nothing has changed");
        w.parent.vanish();
        setup.first.event.wait().await;
        assert_eq!(setup.device.check(), Err(OpError::Gone));
    });
}

#[test]
fn a_device_that_broke_the_protocol_is_failed_and_a_reset_mends_it() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let setup = w.take();
        setup.device.mark_broken();
        assert_eq!(setup.device.check(), Err(OpError::Broken));
        assert_everybody_is_woken(&setup);
        w.platform.run_until_stalled();
        assert!(w.parent.status().contains(DeviceStatus::FAILED));
        let report = setup.device.node().report().unwrap();
        assert!(
            report.facts.contains(&("condition", "broken".into())),
            "{report:?}"
        );

        assert!(
            report.facts.contains(&("failures", "1".into())),
            "{report:?}"
        );

        setup.device.reset().await.unwrap();
        assert_eq!(setup.device.check(), Ok(()));
        assert!(
            setup.first.event.take() && setup.second.event.take(),
            "a reset ends every wait"
        );
        w.virtio.remove_driver("test").await;
    });
    w.platform.run_until_stalled();
    assert_eq!(
        w.platform.tasks(),
        [""; 0],
        "nobody watches a device that has been reset"
    );
}

#[test]
fn a_removal_wakes_every_waiter_and_frees_what_was_in_flight() {
    let w = World::new();
    w.platform.block_on(async {
        let vdpa = w.bring_up().await;
        let mut setup = w.take();
        lend(&mut setup);
        let (bus, other) = (w.vdpa.clone(), vdpa.clone());
        let removal = async move {
            assert_eq!(
                bus.unregister(&other, Removal::Orderly).await,
                Removed::Clean
            );
        };
        w.platform.spawn("removal", Box::pin(removal));
        setup.first.event.wait().await;
        assert_eq!(setup.device.check(), Err(OpError::Gone));
        w.platform.run_until_stalled();
        assert!(setup.second.event.take() && setup.device.config_event().take());
        assert!(w.virtio.devices().is_empty() && w.vdpa.devices().is_empty());
        assert!(vdpa.node().parent().unwrap().children().is_empty());
        drop(setup);
    });
    assert_eq!(w.outstanding(), 0);
    w.platform.run_until_stalled();
    assert_eq!(w.platform.tasks(), [""; 0]);
}

#[test]
fn a_device_that_has_disappeared_gives_its_memory_back() {
    let w = World::new();
    w.platform.block_on(async {
        let vdpa = w.bring_up().await;
        let mut setup = w.take();
        lend(&mut setup);
        w.parent.take_log();
        // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
        let surprise = unsafe { Removal::surprise() };
        let removed = w.vdpa.unregister(&vdpa, surprise).await;
        assert_eq!(removed, Removed::Clean);
        assert!(!w.parent.take_log().contains(&String::from("reset")));
        assert!(setup.first.event.take() && setup.second.event.take());
    });
    assert_eq!(w.outstanding(), 0);
}

#[test]
fn a_device_that_does_not_reset_keeps_its_memory() {
    let w = World::new();
    w.platform.block_on(async {
        let vdpa = w.bring_up().await;
        let mut setup = w.take();
        lend(&mut setup);
        let lent = w.outstanding();
        w.parent.set_resets(Resets::Never);
        let before = w.platform.now();
        let removed = w.vdpa.unregister(&vdpa, Removal::Orderly).await;
        assert_eq!(removed, Removed::Leaked { queues: 2 });
        assert!(
            w.platform.now() - before <= Duration::from_secs(1),
            "it is waited for once"
        );
        assert!(
            w.parent.with_ring(0, |_| ()).is_some(),
            "the device goes on using it"
        );
        drop(setup);
        assert_eq!(w.outstanding(), lent);
    });
}

#[test]
fn a_queue_that_is_dropped_while_the_device_runs_keeps_its_memory() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let mut setup = w.take();
        lend(&mut setup);
        let lent = w.outstanding();
        drop(setup);
        assert!(w.parent.pop(0).is_some(), "the device still finds its ring");
        assert_eq!(w.outstanding(), lent);
    });
}

#[test]
fn a_device_that_has_been_reset_is_no_longer_watched() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        assert_eq!(w.platform.tasks(), ["virtio0"]);
        w.virtio.remove_driver("test").await;
        w.platform.run_until_stalled();
        assert_eq!(w.platform.tasks(), [""; 0]);
    });
}

#[test]
fn a_shutdown_stops_the_device() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        assert!(w.parent.status().contains(DeviceStatus::DRIVER_OK));
        vdpa::power::shutdown(&w.root).await;
        assert!(w.parent.status().is_empty());
        assert!(!w.parent.is_ready(0));
    });
}
