//! A disk that rests, moves to another connection, and takes leave of its server.

use std::time::Duration;

use vdpa::Platform;
use vdpa::device::{Removal, Removed};
use vdpa::ops::OpError;
use vhost_vdpa::vhost_client::{Client, ClientOptions};
use virtio::blk::F;
use virtio_blk::Disk;
use virtio_bus::{MoveError, Registry, VirtioBus};

use crate::driver::{Driver, FLUSH, IN, OK, OUT, request};
use crate::link::{ALL, Link};
use crate::world::{World, drivers};

const LEN: usize = 1 << 20;

async fn sleep(world: &World, milliseconds: u64) {
    world
        .platform
        .sleep(Duration::from_millis(milliseconds))
        .await;
}

#[test]
fn at_rest_all_is_answered_and_lasts() {
    let (world, link) = World::served(LEN, ALL);
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", F::FLUSH.into()).await;
        link.let_answer(false);
        let numbers: Vec<u64> = (0..20)
            .map(|sector| driver.submit(&request(OUT, sector, &[7; 512]), 1))
            .collect();
        sleep(&world, 5).await;
        let later = async {
            sleep(&world, 300).await;
            link.let_answer(true);
        };
        let (suspended, ()) = embassy_futures::join::join(driver.claim.suspend(), later).await;
        assert_eq!(suspended, Ok(()));
        for number in numbers {
            assert_eq!(driver.answer(number).unwrap().status(), OK);
        }
        assert!(
            link.disk.lock().unwrap().stable[..20 * 512]
                .iter()
                .all(|byte| *byte == 7)
        );
        // Nothing is taken before it goes on.
        let number = driver.submit(&request(IN, 0, &[]), 513);
        sleep(&world, 20).await;
        assert!(driver.answer(number).is_none());
        assert!(driver.claim.queue_state(0).await.is_ok());
        driver.claim.resume().await.unwrap();
        assert_eq!(driver.wait(&world, number).await.status(), OK);
        driver.leave(&world).await;
    });
}

#[test]
fn without_a_server_it_does_not_rest_and_goes_on() {
    let (world, link) = World::served(LEN, ALL);
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", F::FLUSH.into()).await;
        link.set_up(false);
        sleep(&world, 5).await;
        let number = driver.submit(&request(OUT, 0, &[7; 512]), 1);
        sleep(&world, 5).await;
        for _ in 0..2 {
            let before = world.platform.now();
            assert_eq!(driver.claim.suspend().await, Err(OpError::WrongState));
            let waited = world.platform.now() - before;
            assert!(waited < Duration::from_secs(2), "{waited:?}");
        }
        link.set_up(true);
        assert_eq!(driver.wait(&world, number).await.status(), OK);
        assert_eq!(driver.claim.suspend().await, Ok(()));
        driver.claim.resume().await.unwrap();
        let read = driver.ask(&world, &request(IN, 0, &[]), 513).await;
        assert_eq!(read.bytes[..512], [7; 512]);
        driver.leave(&world).await;
    });
}

/// A reset while the device comes to rest ends that, too.
#[test]
fn who_resets_does_not_wait_for_rest() {
    let (world, link) = World::served(LEN, ALL);
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", F::FLUSH.into()).await;
        link.let_answer(false);
        driver.submit(&request(IN, 0, &[]), 513);
        sleep(&world, 5).await;
        let before = world.platform.now();
        embassy_futures::select::select(driver.claim.suspend(), sleep(&world, 10)).await;
        driver.reset().await;
        assert!(world.platform.now() - before < Duration::from_millis(500));
        link.let_answer(true);
        driver.leave(&world).await;
    });
    // The next driver has a whole disk.
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", F::FLUSH.into()).await;
        assert_eq!(
            driver
                .ask(&world, &request(FLUSH, 0, &[]), 1)
                .await
                .status(),
            OK
        );
        driver.leave(&world).await;
    });
}

async fn write(disk: &Disk, sector: u64, byte: u8) {
    let mut buffer = disk.buffer(512).unwrap();
    buffer.fill(byte);
    disk.write(sector, buffer).await.unwrap();
}

async fn check(disk: &Disk, sector: u64, byte: u8) {
    let read = disk.read(sector, disk.buffer(512).unwrap()).await.unwrap();
    assert!(read.iter().all(|read| *read == byte), "sector {sector}");
}

/// What one has acknowledged lasts before the other begins, so that the first never does it again.
#[test]
fn what_was_moved_away_is_not_done_again() {
    let world = World::new();
    let link = Link::new(LEN, ALL);
    world.offer("a", &link);
    world.offer("b", &Link::new(LEN, ALL));
    world.platform.block_on(async {
        let a = world.attach("a").await;
        let disk = world.disks.take().unwrap();
        let b = world.attach("b").await;
        world.vdpa.set_override(&b, Some("nobody")).await;
        drop(world.disks.take());
        let writers = (0..32).map(|sector| {
            let disk = disk.clone();
            async move { write(&disk, sector, 1).await }
        });
        for writer in writers {
            world.platform.spawn("writer", Box::pin(writer));
        }
        sleep(&world, 1).await;
        let moved = world.adapter.move_device(&world.vdpa, &a, &b).await;
        assert_eq!(moved, Ok(()));
        write(&disk, 40, 2).await;
        check(&disk, 40, 2).await;
        {
            let mut medium = link.disk.lock().unwrap();
            let written = medium.stable.iter().filter(|byte| **byte == 1).count();
            assert_eq!(written % 512, 0);
            // Another server on the same medium has changed it.
            medium.stable.fill(9);
        }
        link.set_up(false);
        sleep(&world, 10).await;
        link.set_up(true);
        sleep(&world, 10).await;
        assert!(
            link.disk
                .lock()
                .unwrap()
                .cache
                .iter()
                .all(|byte| *byte == 9)
        );
        // Back again it does not go without its server.
        link.set_up(false);
        sleep(&world, 10).await;
        write(&disk, 41, 3).await;
        let back = world.adapter.move_device(&world.vdpa, &b, &a).await;
        assert_eq!(back, Ok(()), "an idle disk needs no server");
        let back = async {
            let writing = write(&disk, 42, 4);
            let moving = async {
                sleep(&world, 5).await;
                let moved = world.adapter.move_device(&world.vdpa, &a, &b).await;
                assert_eq!(moved, Err(MoveError::From(OpError::WrongState)));
                link.set_up(true);
            };
            embassy_futures::join::join(writing, moving).await;
        };
        back.await;
        check(&disk, 42, 4).await;
        drop(disk);
        for device in [a, b] {
            let removed = world.vdpa.unregister(&device, Removal::Orderly).await;
            assert_eq!(removed, Removed::Clean);
        }
    });
}

#[test]
fn a_client_of_vhost_has_the_disk_and_gives_it_back() {
    let (world, link) = World::served(LEN, ALL);
    world.platform.block_on(async {
        let device = world.attach("nbd").await;
        let disk = world.disks.take().unwrap();
        write(&disk, 1, 1).await;
        drop(disk);
        world.vdpa.set_override(&device, Some("vhost_vdpa")).await;
        let handle = world.vhost.open("vhost-vdpa-0", Default::default()).await;
        let bus = VirtioBus::new("client");
        let disks = Registry::new();
        drivers(&bus, &disks).await;
        let options = ClientOptions::default();
        let client = Client::attach(handle.unwrap(), &world.kernel, &bus, options).await;
        let client = client.unwrap();
        let disk: Disk = disks.take().unwrap();
        check(&disk, 1, 1).await;
        // The server dies between the write and the flush.
        write(&disk, 2, 2).await;
        link.set_up(false);
        sleep(&world, 10).await;
        link.set_up(true);
        disk.flush().await.unwrap();
        assert_eq!(link.disk.lock().unwrap().stable[1024..1536], [2; 512]);
        check(&disk, 2, 2).await;
        drop(disk);
        client.detach().await;
        let removed = world.vdpa.unregister(&device, Removal::Orderly).await;
        assert_eq!(removed, Removed::Clean);
    });
}

#[test]
fn a_deleted_device_takes_leave_of_its_server_and_comes_back() {
    let (world, link) = World::served(LEN, ALL);
    world.platform.block_on(async {
        for round in 1..3 {
            let device = world.attach("nbd").await;
            let disk = world.disks.take().unwrap();
            write(&disk, 1, round).await;
            check(&disk, 1, round).await;
            drop(disk);
            let farewells = usize::from(round) - 1;
            assert_eq!(link.farewells(), farewells, "before it is deleted");
            let removed = world.vdpa.unregister(&device, Removal::Orderly).await;
            assert_eq!(removed, Removed::Clean);
            drop(device);
            sleep(&world, 20).await;
            assert_eq!(link.farewells(), farewells + 1);
            assert_eq!(link.connections(), usize::from(round), "it is not needed");
            // What the driver had not flushed was flushed before.
            assert_eq!(link.disk.lock().unwrap().stable[512..1024], [round; 512]);
        }
    });
}
