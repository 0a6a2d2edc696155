//! A disk that is moved between simulators over one medium while it is written to.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Features;
use vdpa::testing::FakeParent;
use vdpa_sim::{Faults, Flavour, SimBlk, SimConfig};

use crate::world::{World, counted, ram_disk, sim_anywhere, sim_with};
use crate::writers::Writers;

fn formats() -> [(&'static str, Features); 2] {
    let all = SimBlk::features();
    let packed = virtio::F::RING_PACKED.into();
    [("packed", all), ("split", all.difference(packed))]
}

#[test]
fn a_disk_is_moved_to_and_fro_and_each_write_is_carried_out_once() {
    for (format, features) in formats() {
        for flavour in [Flavour::Incremental, Flavour::Whole] {
            let sim = SimConfig {
                flavour,
                ..sim_with(features)
            };
            check_moves(&sim, &format!("{format}, {flavour:?}"));
        }
    }
}

fn check_moves(sim: &SimConfig, what: &str) {
    let w = World::new();
    let medium = ram_disk();
    // So that requests are in flight whenever a device is stopped.
    let sim = SimConfig {
        faults: slow(),
        ..sim.clone()
    };
    w.platform.block_on(async {
        let a = w.add(w.sim_blk(&medium, &sim)).await;
        let disk = w.made.disks.take().unwrap();
        let b = w.add_spare(w.sim_blk(&medium, &sim)).await;
        let writers = Writers::start(&w, &disk);
        for _ in 0..3 {
            writers.progress(&w).await;
            w.move_device(&a, &b).await.unwrap();
            assert_eq!(w.vdpa.driver_of(&a), None, "{what}");
            assert!(a.status().unwrap().is_empty(), "{what}");
            let path = w.virtio_device().node().path();
            assert_eq!(path, format!("{} -> virtio0", b.node().name()), "{what}");
            writers.progress(&w).await;
            w.move_device(&b, &a).await.unwrap();
            assert_eq!(w.vdpa.driver_of(&a).as_deref(), Some("virtio_vdpa"));
        }
        writers.progress(&w).await;
        let done = Writers::writes(&writers);
        writers.finish(&w, &medium).await;
        let carried_out = counted(&a, 0, "writes") + counted(&b, 0, "writes");
        assert!(done > 100, "{what}: {done} writes");
        let (from_a, from_b) = (counted(&a, 0, "writes"), counted(&b, 0, "writes"));
        assert!(from_a > 20 && from_b > 20, "{what}: both have worked");
        let queue = &w.virtio_device().node().report().unwrap().queues[0];
        // Every request is a write and a read of it.
        assert_eq!(queue.counters.added, 2 * carried_out, "{what}");
        drop(disk);
        for device in [a, b] {
            w.vdpa
                .unregister(&device, vdpa::device::Removal::Orderly)
                .await;
        }
    });
    assert_eq!(w.memory(), 0, "{what}");
    assert_eq!(w.platform.tasks(), [""; 0], "{what}");
}

fn slow() -> Arc<Faults> {
    let faults = Arc::<Faults>::default();
    faults.delay_completions(Duration::from_millis(2));
    faults
}

#[test]
fn requests_that_are_in_flight_at_the_move_complete_on_the_other_device() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let faults = Arc::<Faults>::default();
        let sim = SimConfig {
            faults: Arc::clone(&faults),
            ..SimConfig::default()
        };
        let a = w.add(w.sim_blk(&medium, &sim)).await;
        let disk = w.made.disks.take().unwrap();
        let b = w.add_spare(w.sim_blk(&medium, &SimConfig::default())).await;
        // The device does not hear of the request before it is stopped.
        faults.drop_kicks(u32::MAX);
        let mut buffer = disk.buffer(512).unwrap();
        buffer.fill(0x5a);
        let write = disk.write(3, buffer);
        let moving = async {
            w.move_device(&a, &b).await.unwrap();
        };
        let (written, ()) = embassy_futures::join::join(write, moving).await;
        written.unwrap();
        assert_eq!((counted(&a, 0, "writes"), counted(&b, 0, "writes")), (0, 1));
        let mut bytes = [0; 512];
        medium.read(3 * 512, &mut bytes).unwrap();
        assert_eq!(bytes, [0x5a; 512]);
    });
}

#[test]
fn an_answer_whose_interrupt_the_old_device_did_not_get_out_is_found() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let config = [0, 0x20, 0, 0, 0, 0, 0, 0];
        let old = FakeParent::new(&w.platform, 2, Features::EMPTY, &[64], &config);
        let from = w.add(old.ops()).await;
        let disk = w.made.disks.take().unwrap();
        let to = w.add_spare(w.sim_blk(&medium, &sim_anywhere())).await;
        let write = disk.write(0, disk.buffer(512).unwrap());
        let moving = async {
            let request = old.pop(0).expect("the write");
            old.with_ring(0, |ring| {
                ring.write(&request, 0, &[0]);
                ring.finish(&request, 1);
            });
            w.move_device(&from, &to).await.unwrap();
        };
        let (written, ()) = embassy_futures::join::join(write, moving).await;
        written.unwrap();
        assert_eq!(
            counted(&to, 0, "writes"),
            0,
            "it has been carried out already"
        );
    });
}

#[test]
fn the_driver_learns_of_the_new_capacity() {
    let w = World::new();
    w.platform.block_on(async {
        let sim = SimConfig::default();
        let a = w.add(w.sim_blk(&ram_disk(), &sim)).await;
        let disk = w.made.disks.take().unwrap();
        let larger = vdpa_sim::RamDisk::new(8 << 20, vdpa_sim::Storage::Sparse).unwrap();
        let b = w.add_spare(w.sim_blk(&larger, &sim)).await;
        assert_eq!(disk.capacity(), 8192);
        w.move_device(&a, &b).await.unwrap();
        w.kernel.sleep(Duration::from_millis(1)).await;
        assert_eq!(disk.capacity(), 16384);
    });
}
