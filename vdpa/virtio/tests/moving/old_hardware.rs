//! Hardware that tells no queue state, cannot be suspended and starts afresh after each reset, as a
//! virtio function without later extensions: away from it and back to it, on live traffic.

use vdpa::Features;
use vdpa::device::Removal;
use vdpa::ops::{Abilities, OpError};
use virtio_bus::MoveError;

use crate::slow_disk::slow_disk;
use crate::world::{World, counted, ram_disk, sim_anywhere, sim_with};
use crate::writers::Writers;

fn formats() -> [Features; 4] {
    let common = Features::from(virtio::F::INDIRECT_DESC);
    let event_idx = common | virtio::F::EVENT_IDX.into();
    let packed = Features::from(virtio::F::RING_PACKED);
    [common, event_idx, common | packed, event_idx | packed]
}

#[test]
fn a_disk_goes_from_old_hardware_to_a_simulator_and_back() {
    for features in formats() {
        let w = World::new();
        let medium = ram_disk();
        w.platform.block_on(async {
            let old = slow_disk(&w, &medium, features, Abilities::empty());
            let hardware = w.add(old.ops()).await;
            let disk = w.made.disks.take().unwrap();
            let sim = w.add_spare(w.sim_blk(&medium, &sim_anywhere())).await;
            let writers = Writers::start(&w, &disk);
            for _ in 0..3 {
                writers.progress(&w).await;
                w.move_device(&hardware, &sim).await.unwrap();
                assert!(old.status().is_empty() && !old.is_ready(0), "{features}");
                writers.progress(&w).await;
                w.move_device(&sim, &hardware).await.unwrap();
                assert!(sim.status().unwrap().is_empty(), "{features}");
            }
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
            assert!(counted(&sim, 0, "writes") > 20, "{features}");
            drop((disk, old));
            for device in [hardware, sim] {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
        });
        assert_eq!(w.memory(), 0, "{features}");
    }
}

#[test]
fn a_disk_goes_from_one_old_device_to_another() {
    for features in formats() {
        let w = World::new();
        let medium = ram_disk();
        w.platform.block_on(async {
            let devices = [(); 2].map(|()| slow_disk(&w, &medium, features, Abilities::empty()));
            let first = w.add(devices[0].ops()).await;
            let disk = w.made.disks.take().unwrap();
            let second = w.add_spare(devices[1].ops()).await;
            let writers = Writers::start(&w, &disk);
            writers.progress(&w).await;
            w.move_device(&first, &second).await.unwrap();
            writers.progress(&w).await;
            w.move_device(&second, &first).await.unwrap();
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
        });
    }
}

#[test]
fn a_simulators_addresses_mean_nothing_to_hardware() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let features = virtio::F::ACCESS_PLATFORM | virtio::F::VERSION_1;
        let sim = w.add(w.sim_blk(&medium, &sim_with(features.into()))).await;
        let disk = w.made.disks.take().unwrap();
        let old = slow_disk(&w, &medium, features.into(), Abilities::empty());
        let hardware = w.add_spare(old.ops()).await;
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        let refused = w.move_device(&sim, &hardware).await;
        assert_eq!(refused, Err(MoveError::To(OpError::Invalid)));
        writers.progress(&w).await;
        writers.finish(&w, &medium).await;
        assert!(old.status().is_empty());
    });
}
