//! A disk of a task behind the same driver in the kernel and in a client of vhost, with a task that
//! ends in between.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embassy_futures::select::select;
use vdpa::Platform;
use vdpa::device::{Removal, Removed};
use vdpa_vduse::protocol::{Message, Outcome, Response};
use vdpa_vduse::{Task, TaskDevice, TaskError, Turn, serve};
use vhost_vdpa::vhost_client::{Client, ClientOptions};
use virtio_blk::{BlkError, Disk};
use virtio_bus::VirtioBus;
use virtq::Event;

use crate::world::{DEADLINE, Shared, World, drivers};

/// Writes a sector and reads it back.
async fn exchange(disk: &Disk, sector: u64, byte: u8) -> Result<(), BlkError> {
    let mut buffer = disk.buffer(512)?;
    buffer.fill(byte);
    disk.write(sector, buffer).await?;
    let read = disk.read(sector, disk.buffer(512)?).await?;
    assert!(read.iter().all(|read| *read == byte));
    disk.flush().await
}

async fn both_ways(world: &World, check: impl AsyncFn(&World, &Disk)) {
    let ops = world.control.attach("disk").unwrap();
    let device = world.add(ops).await;
    let disk = world.disks.take().unwrap();
    check(world, &disk).await;
    drop(disk);
    world.vdpa.set_override(&device, Some("vhost_vdpa")).await;
    let handle = world.vhost.open("vhost-vdpa-0", Default::default()).await;
    let bus = VirtioBus::new("client");
    let disks = drivers(&bus).await;
    let options = ClientOptions::default();
    let client = Client::attach(handle.unwrap(), &world.kernel, &bus, options).await;
    let client = client.unwrap();
    let disk = disks.take().unwrap();
    check(world, &disk).await;
    drop(disk);
    client.detach().await;
    let removed = world.vdpa.unregister(&device, Removal::Orderly).await;
    assert_eq!(removed, Removed::Clean);
}

#[test]
fn both_consumers_use_the_disk_and_leave_nothing_behind() {
    let world = World::new();
    let medium = Shared::disk();
    let stop = world.run_disk(&medium);
    world.platform.block_on(both_ways(&world, async |_, disk| {
        for sector in 0..20 {
            exchange(disk, sector, sector as u8 + 1).await.unwrap();
        }
    }));
    stop.raise();
    world.platform.run_until_stalled();
    world.control.destroy("disk").unwrap();
    assert_eq!(world.platform.heap().outstanding(), 0);
    assert_eq!(world.platform.tasks(), [""; 0]);
}

/// Answers the messages, takes requests, and answers none.
struct Hoarder;

impl TaskDevice for Hoarder {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        while let Some(job) = task.take(0)? {
            // A part of an answer, which the next task does not see.
            task.write(job, 0, &[0xee; 8])?;
        }
        Ok(Turn::Idle)
    }
}

#[test]
fn a_task_that_dies_leaves_its_requests_to_the_next() {
    let world = World::new();
    let medium = Shared::disk();
    let stop = Arc::new(Mutex::new(world.run_disk(&medium)));
    let restart = async |device: Box<dyn TaskDevice>| {
        stop.lock().unwrap().raise();
        world.platform.sleep(Duration::from_millis(1)).await;
        *stop.lock().unwrap() = world.run_task(world.control.open("disk").unwrap(), device);
    };
    world
        .platform
        .block_on(both_ways(&world, async |world, disk| {
            exchange(disk, 0, 0x11).await.unwrap();
            restart(Box::new(Hoarder)).await;
            let done = Arc::<Event>::default();
            for sector in 1..9 {
                let (disk, done) = (disk.clone(), Arc::clone(&done));
                let writer = async move {
                    exchange(&disk, sector, 0x22).await.unwrap();
                    done.raise();
                };
                world.platform.spawn("writer", Box::pin(writer));
            }
            world.platform.sleep(Duration::from_millis(1)).await;
            assert_eq!(done.count(), 0);
            // Twice: the second has them from the first.
            restart(Box::new(Hoarder)).await;
            world.platform.sleep(Duration::from_millis(1)).await;
            restart(Box::new(medium.clone())).await;
            world.platform.sleep(Duration::from_millis(1)).await;
            assert_eq!(done.count(), 8);
            let read = disk.read(0, disk.buffer(512).unwrap()).await.unwrap();
            assert!(
                read.iter().all(|byte| *byte == 0x11),
                "what was acknowledged is there"
            );
        }));
}

#[test]
fn a_driver_whose_task_does_not_come_back_gets_an_error() {
    let world = World::new();
    let stop = world.run_disk(&Shared::disk());
    world.platform.block_on(async {
        let ops = world.control.attach("disk").unwrap();
        let device = world.add(ops).await;
        let disk = world.disks.take().unwrap();
        exchange(&disk, 0, 1).await.unwrap();
        stop.raise();
        world.platform.sleep(Duration::from_millis(1)).await;
        let before = world.kernel.now();
        assert!(exchange(&disk, 0, 2).await.is_err());
        let waited = world.kernel.now() - before;
        assert!(waited <= DEADLINE + Duration::from_secs(2), "{waited:?}");
        // It can be closed alone, and whoever has it is told.
        let task = world.control.open("disk").unwrap();
        assert_eq!(task.receive(), Err(TaskError::Broken));
        assert_eq!(task.inject_interrupt(0), Err(TaskError::Broken));
        drop(task);
        let removed = world.vdpa.unregister(&device, Removal::Orderly).await;
        assert_eq!(removed, Removed::Clean);
        drop((disk, device));
        world.control.destroy("disk").unwrap();
    });
}

#[test]
fn a_task_that_does_not_answer_breaks_its_device_and_nothing_else() {
    let world = World::new();
    let medium = Shared::disk();
    let task = world.open_disk(&medium);
    world.platform.block_on(async {
        let ops = world.control.attach("disk").unwrap();
        let before = world.kernel.now();
        let device = world.add(ops).await;
        // Nobody has answered: the driver has given up, and the bus did not wait longer.
        assert!(world.disks.take().is_none());
        let waited = world.kernel.now() - before;
        assert!(waited < 2 * DEADLINE, "{waited:?}");
        assert_eq!(task.receive(), Err(TaskError::Broken));
        let late = Response::new(0, Outcome::Done).encode();
        assert_eq!(task.reply(&late), Err(TaskError::Broken));
        let removed = world.vdpa.unregister(&device, Removal::Orderly).await;
        assert_eq!(removed, Removed::Clean);
        drop(device);
        let again = world.control.attach("disk").err();
        assert_eq!(again, Some(vdpa_vduse::AttachError::Broken));
    });
    assert_eq!(world.platform.heap().outstanding(), 0);
}

#[test]
fn a_message_that_was_read_and_not_answered_goes_to_the_next_task() {
    let world = World::new();
    let medium = Shared::disk();
    let first = world.open_disk(&medium);
    let second = async {
        first.wait().await;
        while first.receive().unwrap().is_none() {
            first.wait().await;
        }
        drop(first);
        let task = world.control.open("disk").unwrap();
        let end = serve(&task, &mut medium.clone()).await;
        panic!("the task ends: {end}");
    };
    let test = async {
        let ops = world.control.attach("disk").unwrap();
        let device = world.add(ops).await;
        exchange(&world.disks.take().unwrap(), 0, 7).await.unwrap();
        world.vdpa.unregister(&device, Removal::Orderly).await
    };
    world.platform.block_on(async {
        select(test, async {
            second.await;
            pending::<()>().await;
        })
        .await;
    });
    assert_eq!(Message::SIZE, 152);
}
