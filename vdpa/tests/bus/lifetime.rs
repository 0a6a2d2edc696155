//! What becomes of devices, drivers and ids when they go, also in the middle of something.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use vdpa::Platform;
use vdpa::bus::{AddError, Busy};
use vdpa::testing::FakePlatform;

use crate::toy::{Toy, any, run, world};

#[test]
fn an_id_comes_back_with_the_last_reference_only() {
    run(async {
        let w = world();
        let held = Toy::numbered(&w.bus, &w.root, "lan", &w.journal);
        w.bus.add_device(Arc::clone(&held)).await.unwrap();
        w.bus.remove_device(&held).await;
        let second = Toy::numbered(&w.bus, &w.root, "lan", &w.journal);
        assert_eq!((held.name(), second.name()), ("lan.0", "lan.1"));
        drop(held);
        assert_eq!(
            Toy::numbered(&w.bus, &w.root, "lan", &w.journal).name(),
            "lan.0"
        );
    });
}

#[test]
fn a_device_that_nobody_refers_to_is_freed_once_when_it_leaves() {
    run(async {
        let w = world();
        w.drive(w.table("d", vec![any(0)])).await;
        let device = w.add("a").await;
        w.journal.take();
        w.bus.remove_device(&device).await;
        assert_eq!(
            w.journal.take(),
            ["leaving a", "d remove a", "quiesce a", "left a"]
        );
        assert!(w.root.children().is_empty(), "it is out of the tree");
        w.bus.remove_device(&device).await;
        assert_eq!(w.journal.take(), [""; 0], "the second removal does nothing");
        drop(device);
        assert_eq!(w.journal.take(), ["free a"]);
    });
}

#[test]
fn a_device_that_cannot_be_added_is_freed_and_gives_its_id_back() {
    run(async {
        let w = world();
        w.add("lan.0").await;
        let twin = Toy::numbered(&w.bus, &w.root, "lan", &w.journal);
        assert_eq!(w.bus.add_device(twin).await, Err(AddError::NameTaken));
        assert_eq!(w.journal.take(), ["free lan.0"]);
        assert_eq!(w.root.children().len(), 1);
        assert_eq!(w.bus.allocate_id().unwrap().number(), 0);
    });
}

#[test]
fn removing_a_driver_takes_every_device_from_it_once() {
    run(async {
        let w = world();
        w.drive(w.table("d", vec![any(0)])).await;
        let devices = [w.add("a").await, w.add("b").await, w.add("c").await];
        w.journal.take();
        w.bus.remove_driver("d").await;
        w.bus.remove_driver("d").await;
        let expected = [
            "d remove c",
            "quiesce c",
            "d remove b",
            "quiesce b",
            "d remove a",
            "quiesce a",
        ];
        assert_eq!(w.journal.take(), expected);
        assert!(
            devices
                .iter()
                .all(|device| w.bus.driver_of(device).is_none())
        );
        w.bus.rescan().await;
        assert_eq!(
            w.journal.take(),
            [""; 0],
            "a removed driver is not asked again"
        );
    });
}

#[test]
fn a_bus_with_devices_or_ids_in_use_is_not_closed() {
    run(async {
        let w = world();
        w.drive(w.table("d", vec![any(0)])).await;
        let device = Toy::numbered(&w.bus, &w.root, "lan", &w.journal);
        w.bus.add_device(Arc::clone(&device)).await.unwrap();
        assert_eq!(w.bus.close(), Err(Busy { devices: 1, ids: 1 }));
        assert_eq!(
            w.bus.driver_of(&device).as_deref(),
            Some("d"),
            "nothing has changed"
        );
        w.bus.remove_device(&device).await;
        assert_eq!(w.bus.close(), Err(Busy { devices: 0, ids: 1 }));
        drop(device);
        assert_eq!(w.bus.close(), Ok(()));
        let late = Toy::named(&w.root, "late", &w.journal);
        assert_eq!(w.bus.add_device(late).await, Err(AddError::Closed));
        assert_eq!(
            w.bus.add_driver(Arc::new(w.driver("late"))).await,
            Err(AddError::Closed)
        );
    });
}

#[test]
fn devices_can_be_removed_while_they_are_listed() {
    run(async {
        let w = world();
        w.drive(w.table("d", vec![any(0)])).await;
        for name in ["a", "b", "c"] {
            w.add(name).await;
        }
        for device in w.bus.devices() {
            w.bus.remove_device(&device).await;
        }
        assert!(w.bus.devices().is_empty());
    });
}

#[test]
fn a_removal_during_a_probe_waits_for_it_and_undoes_it() {
    let platform = FakePlatform::new();
    let w = world();
    let (bus, journal) = (Arc::clone(&w.bus), w.journal.clone());
    let slow = w.table("slow", vec![any(0)]).pausing(&platform);
    platform.block_on(async {
        w.drive(slow).await;
        let device = Toy::named(&w.root, "a", &journal);
        let (b, d) = (Arc::clone(&bus), Arc::clone(&device));
        spawn(&platform, async move { b.add_device(d).await.unwrap() });
        platform.run_until_stalled();
        assert_eq!(journal.take(), ["slow probe a with 0"]);
        bus.remove_device(&device).await;
        assert_eq!(
            journal.take(),
            ["leaving a", "slow remove a", "quiesce a", "left a"]
        );
        bus.rescan().await;
        assert_eq!(bus.driver_of(&device), None);
    });
}

#[test]
fn a_driver_removed_during_its_probe_does_not_keep_the_device() {
    let platform = FakePlatform::new();
    let w = world();
    let slow = w.table("slow", vec![any(0)]).pausing(&platform);
    platform.block_on(async {
        let device = w.add("a").await;
        let bus = Arc::clone(&w.bus);
        spawn(&platform, async move {
            bus.add_driver(Arc::new(slow)).await.unwrap();
        });
        platform.run_until_stalled();
        w.bus.remove_driver("slow").await;
        assert_eq!(w.bus.driver_of(&device), None);
        assert_eq!(
            w.journal.take(),
            ["slow probe a with 0", "slow remove a", "quiesce a"]
        );
    });
}

#[test]
fn a_driver_that_goes_while_it_waits_for_a_device_does_not_get_it() {
    let platform = FakePlatform::new();
    let w = world();
    let slow = w.table("slow", vec![any(0)]).pausing(&platform);
    platform.block_on(async {
        w.drive(slow).await;
        let device = w.add("a").await;
        w.journal.take();
        let bus = Arc::clone(&w.bus);
        spawn(&platform, async move {
            bus.remove_driver("slow").await;
        });
        platform.run_until_stalled();
        let (bus, late) = (Arc::clone(&w.bus), w.table("late", vec![any(0)]));
        spawn(&platform, async move {
            bus.add_driver(Arc::new(late)).await.unwrap();
        });
        platform.run_until_stalled();
        w.bus.remove_driver("late").await;
        platform.run_until_stalled();
        assert_eq!(w.journal.take(), ["slow remove a", "quiesce a"]);
        assert_eq!(w.bus.driver_of(&device), None);
    });
}

#[test]
fn a_probe_that_is_dropped_half_way_is_cleaned_up_by_the_next() {
    let platform = FakePlatform::new();
    let w = world();
    let slow = w.table("slow", vec![any(0)]).pausing(&platform);
    platform.block_on(async {
        w.drive(slow).await;
        let device = Toy::named(&w.root, "a", &w.journal);
        {
            let mut attempt = Box::pin(w.bus.add_device(Arc::clone(&device)));
            assert!(poll_once(attempt.as_mut()).is_pending());
        }
        assert_eq!(w.bus.driver_of(&device), None);
        w.bus.rescan().await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("slow"));
        let expected = ["slow probe a with 0", "quiesce a", "slow probe a with 0"];
        assert_eq!(w.journal.take(), expected);
    });
}

fn spawn(platform: &Arc<FakePlatform>, task: impl Future<Output = ()> + Send + 'static) {
    Platform::spawn(platform.as_ref(), "test", Box::pin(task));
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
