//! From probe to removal: what is read, refused, published and freed.

use std::collections::VecDeque;
use std::sync::Arc;

use vdpa::device::{Removal, Removed};
use vdpa::ops::OpError;
use vdpa::testing::{FakePlatform, HeapDma, Resets};
use virtio::blk::F;
use virtio_blk::{BlkDriver, BlkError, Disk};
use virtio_bus::Registry;

use crate::faults::assert_later_calls_fail;
use crate::fixture::{Blk, Medium, SECTORS, Setup, poll_all};

#[test]
fn a_disk_is_published_and_in_the_tree() {
    let registry = Registry::new();
    let world = Setup::with(F::BLK_SIZE | F::RO).world(&registry);
    assert_eq!(registry.names(), ["blk0"]);
    assert_eq!(world.driver().as_deref(), Some("virtio_blk"));
    assert_eq!(
        world.find("blk0").unwrap().path(),
        "vdpa0 -> virtio0 -> blk0"
    );
    let expected = [
        "capacity: 128 MiB",
        "block size: 4096",
        "access: read-only",
        "cache: write-back",
        "largest request: 3.99 GiB",
    ];
    assert_eq!(world.facts("blk0"), expected);
    let disk = registry.take().unwrap();
    assert_eq!(
        (disk.name(), disk.capacity(), disk.block_size()),
        ("blk0", SECTORS, 4096)
    );
}

#[test]
fn only_known_features_are_negotiated() {
    let blk = Setup::with(F::DISCARD | F::MQ | F::GEOMETRY | F::RO | F::CONFIG_WCE).start();
    let expected = F::FLUSH | F::RO | F::INDIRECT_DESC | F::VERSION_1;
    assert_eq!(blk.world.parent.accepted(), expected.into());
}

#[test]
fn a_disk_that_cannot_be_used_is_refused() {
    let odd_blocks = Setup {
        blk_size: 520,
        ..Setup::with(F::BLK_SIZE)
    };
    let no_data = Setup {
        size_max: 511,
        seg_max: 1,
        ..Setup::with(F::SIZE_MAX | F::SEG_MAX)
    };
    let small_queue = Setup {
        queue_size: 2,
        ..Setup::default()
    };
    for setup in [odd_blocks, no_data, small_queue] {
        let registry = Registry::new();
        let world = setup.world(&registry);
        assert_eq!((registry.names(), world.driver()), (Vec::new(), None));
        assert_eq!(world.memory(), 0);
    }
}

#[test]
fn the_capacity_follows_the_disk() {
    let blk = Setup::default().start();
    blk.world.parent.change_config(0, &8u64.to_le_bytes());
    blk.world.platform.run_until_stalled();
    assert_eq!(blk.disk.capacity(), 8);
    let read = blk.disk.read(8, blk.disk.buffer(512).unwrap());
    assert_eq!(blk.refused(read).unwrap_err(), BlkError::OutOfRange);
}

/// Four reads of which the disk has seen two.
fn reads_in_flight(
    blk: &Blk,
) -> VecDeque<impl Future<Output = Result<virtq::DmaBuffer, BlkError>> + Unpin + use<>> {
    let mut reads: VecDeque<_> = (0..4)
        .map(|sector| {
            let (disk, buffer) = (blk.disk.clone(), blk.disk.buffer(512).unwrap());
            Box::pin(async move { disk.read(sector, buffer).await })
        })
        .collect();
    poll_all(&mut reads, |_| {});
    assert!(blk.next().is_some() && blk.next().is_some());
    reads
}

fn assert_all_end(
    reads: &mut VecDeque<impl Future<Output = Result<virtq::DmaBuffer, BlkError>> + Unpin>,
) {
    let mut errors = Vec::new();
    poll_all(reads, |result| errors.push(result.unwrap_err()));
    assert_eq!(errors, [BlkError::Gone; 4]);
}

#[test]
fn removal_with_requests_in_flight_ends_them_and_frees_everything() {
    for removal in [Removal::Orderly, crate::common::surprise()] {
        let blk = Setup::default().start();
        let mut medium = Medium::new(256);
        let mut bytes = vec![0; 65_536];
        let copy = blk.disk.read_into(0, &mut bytes);
        assert_eq!(blk.serve(copy, |seen| medium.carry_out(seen)), Ok(()));
        let mut reads = reads_in_flight(&blk);
        assert_eq!(blk.world.remove(removal), Removed::Clean);
        assert_all_end(&mut reads);
        assert_later_calls_fail(&blk, BlkError::Gone);
        assert_eq!(blk.world.platform.tasks(), [""; 0]);
        drop((reads, blk.disk));
        assert_eq!(blk.world.memory(), 0, "{removal:?}");
        assert!(blk.world.find("blk0").is_none());
    }
}

#[test]
fn buffers_in_flight_are_freed_at_removal_though_somebody_keeps_the_disk() {
    let blk = Setup::default().start();
    let idle = blk.world.memory();
    let reads = reads_in_flight(&blk);
    assert_eq!(blk.world.memory(), idle + 4 * 512);
    blk.world.remove(Removal::Orderly);
    drop(reads);
    assert!(blk.world.memory() < idle, "only the ring is left");
}

#[test]
fn a_driver_that_leaves_ends_its_requests_and_its_successor_starts_afresh() {
    let mut blk = Setup::default().start();
    let mut reads = reads_in_flight(&blk);
    blk.world.remove_driver("virtio_blk");
    assert_all_end(&mut reads);
    assert_later_calls_fail(&blk, BlkError::Gone);

    blk.world
        .add_driver(Arc::new(BlkDriver::new(Arc::clone(&blk.registry))));
    blk.disk = blk.registry.take().unwrap();
    assert_eq!(
        blk.disk.name(),
        "blk1",
        "no two disks that somebody holds share a name"
    );
    let mut medium = Medium::new(1);
    let read = blk.disk.read(0, blk.disk.buffer(512).unwrap());
    assert!(blk.serve(read, |seen| medium.carry_out(seen)).is_ok());
}

#[test]
fn memory_that_an_unreset_disk_may_write_is_never_freed() {
    let blk = Setup::default().start();
    let mut reads = reads_in_flight(&blk);
    blk.world.parent.set_resets(Resets::Never);
    assert_eq!(
        blk.world.remove(Removal::Orderly),
        Removed::Leaked { queues: 1 }
    );
    assert_all_end(&mut reads);
    drop((reads, blk.disk));
    assert!(blk.world.memory() >= 4 * 512);
}

#[test]
fn requests_end_at_once_though_the_disk_takes_long_to_reset() {
    let blk = Setup::default().start();
    let mut reads = reads_in_flight(&blk);
    blk.world.begin_to_remove_driver("virtio_blk");
    assert_all_end(&mut reads);
    assert_later_calls_fail(&blk, BlkError::Gone);
}

#[test]
fn a_probe_that_fails_at_any_step_leaves_nothing_behind() {
    let setup = Setup::with(F::BLK_SIZE | F::SIZE_MAX | F::SEG_MAX);
    for step in 0.. {
        let registry: Arc<Registry<Disk>> = Registry::new();
        let driver = BlkDriver::new(Arc::clone(&registry));
        let world = setup.world_on(FakePlatform::new(), driver, |parent| {
            parent.fail_after(step, OpError::Timeout);
        });
        if world.parent.take_fault() {
            assert!(step > 12, "the driver's steps were all reached");
            return;
        }
        if registry.names().is_empty() {
            assert_eq!(world.memory(), 0, "step {step}");
            assert!(world.find("blk0").is_none(), "step {step}");
            assert_eq!(world.platform.tasks(), [""; 0], "step {step}");
        }
    }
}

#[test]
fn without_memory_the_probe_fails_cleanly_and_requests_fail_alone() {
    let setup = Setup::default();
    let enough = setup.start().world.memory();
    for limit in [0, 100, enough - 1] {
        let registry = Registry::new();
        let driver = BlkDriver::new(Arc::clone(&registry));
        let platform = FakePlatform::with_heap(HeapDma::limited(limit));
        let world = setup.world_on(platform, driver, |_| {});
        assert_eq!(registry.names(), [""; 0], "{limit} bytes");
        assert_eq!(world.memory(), 0, "{limit} bytes");
    }
    let registry = Registry::new();
    let driver = BlkDriver::new(Arc::clone(&registry));
    let platform = FakePlatform::with_heap(HeapDma::limited(enough + 512));
    let world = setup.world_on(platform, driver, |_| {});
    let blk = Blk {
        disk: registry.take().unwrap(),
        registry,
        world,
    };
    assert_eq!(blk.disk.buffer(513).unwrap_err(), BlkError::OutOfMemory);
    assert_eq!(
        blk.refused(blk.disk.read_into(0, &mut [0; 512])),
        Err(BlkError::OutOfMemory)
    );
    let mut medium = Medium::new(1);
    let read = blk.disk.read(0, blk.disk.buffer(512).unwrap());
    assert!(blk.serve(read, |seen| medium.carry_out(seen)).is_ok());
}
