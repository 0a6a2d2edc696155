//! The system goes to sleep and wakes up while requests are in flight.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Features;
use vdpa::ops::Abilities;
use vdpa::power::{self, PowerError};
use vdpa::testing::{FakeParent, Resets};
use vdpa_sim::{Faults, SimConfig};

use crate::slow_disk::slow_disk;
use crate::traffic::Traffic;
use crate::world::{World, ram_disk};
use crate::writers::Writers;

fn slow() -> SimConfig {
    let faults = Arc::<Faults>::default();
    faults.delay_completions(Duration::from_millis(1));
    SimConfig {
        faults,
        ..SimConfig::default()
    }
}

#[test]
fn a_disk_sleeps_and_wakes_with_requests_in_flight() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let device = w.add(w.sim_blk(&medium, &slow())).await;
        let disk = w.made.disks.take().unwrap();
        let writers = Writers::start(&w, &disk);
        for _ in 0..5 {
            writers.progress(&w).await;
            power::suspend(&w.root).await.unwrap();
            assert!(device.status().unwrap().is_empty(), "it may lose power");
            let before = writers.writes();
            w.kernel.sleep(Duration::from_millis(50)).await;
            assert!(writers.writes() <= before + 8, "nobody serves the queue");
            power::resume(&w.root).await.unwrap();
        }
        writers.progress(&w).await;
        writers.finish(&w, &medium).await;
    });
}

#[test]
fn an_interface_sleeps_and_wakes_and_loses_no_frame() {
    let w = World::new();
    w.platform.block_on(async {
        let device = w.add(w.sim_net(&slow())).await;
        let interface = w.made.nets.take().unwrap();
        let traffic = Traffic::start(&w, interface);
        for _ in 0..5 {
            traffic.progress(&w).await;
            power::suspend(&w.root).await.unwrap();
            assert!(device.status().unwrap().is_empty(), "it may lose power");
            w.kernel.sleep(Duration::from_millis(50)).await;
            power::resume(&w.root).await.unwrap();
        }
        traffic.progress(&w).await;
        traffic.finish(&w).await;
    });
}

#[test]
fn hardware_that_forgets_everything_sleeps_and_wakes_too() {
    for abilities in [Abilities::empty(), Abilities::SUSPEND | Abilities::RESUME] {
        let w = World::new();
        let medium = ram_disk();
        w.platform.block_on(async {
            let features = Features::from(virtio::F::INDIRECT_DESC);
            let old = slow_disk(&w, &medium, features, abilities);
            w.add(old.ops()).await;
            let disk = w.made.disks.take().unwrap();
            let writers = Writers::start(&w, &disk);
            for _ in 0..3 {
                writers.progress(&w).await;
                power::suspend(&w.root).await.unwrap();
                assert!(old.status().is_empty() && !old.is_ready(0));
                power::resume(&w.root).await.unwrap();
            }
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
        });
    }
}

#[test]
fn a_device_that_is_asleep_is_not_notified_and_hears_of_everything_afterwards() {
    let w = World::new();
    w.platform.block_on(async {
        let config = [8, 0, 0, 0, 0, 0, 0, 0];
        let parent = FakeParent::new(&w.platform, 2, Features::EMPTY, &[64], &config);
        w.add(parent.ops()).await;
        let disk = w.made.disks.take().unwrap();
        power::suspend(&w.root).await.unwrap();
        parent.kick(0).take();
        let buffer = disk.buffer(512).unwrap();
        w.spawn(async move { drop(disk.write(0, buffer).await) });
        w.kernel.sleep(Duration::from_millis(1)).await;
        assert!(!parent.kick(0).take(), "it may have no power");
        power::resume(&w.root).await.unwrap();
        assert!(parent.kick(0).take());
        let request = parent.pop(0).expect("the write");
        parent.complete(0, &request, &[0]);
    });
}

#[test]
fn a_device_that_does_not_stop_keeps_the_system_awake() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let features = Features::from(virtio::F::INDIRECT_DESC);
        let old = slow_disk(&w, &medium, features, Abilities::empty());
        w.add(old.ops()).await;
        let disk = w.made.disks.take().unwrap();
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        old.set_resets(Resets::Never);
        assert_eq!(power::suspend(&w.root).await, Err(PowerError::Device));
    });
}

#[test]
fn a_device_that_is_asleep_can_be_taken_away() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let device = w.add(w.sim_blk(&medium, &SimConfig::default())).await;
        let disk = w.made.disks.take().unwrap();
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        power::suspend(&w.root).await.unwrap();
        w.vdpa
            .unregister(&device, vdpa::device::Removal::Orderly)
            .await;
        w.kernel.sleep(Duration::from_millis(10)).await;
        assert_eq!(writers.running(), 0, "the writers have been told");
        drop(disk);
    });
    assert_eq!(w.memory(), 0);
}
