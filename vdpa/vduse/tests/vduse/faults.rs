//! The life of a device, in which each message of all goes wrong in each way that there is: the
//! device is fine or broken afterwards, as the table says; everybody is told, and nothing is left.

mod calls;
mod saboteur;

use std::sync::Arc;
use std::time::Duration;

use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, DmaModel, OpError};
use vdpa::testing::FakePlatform;
use vdpa_vduse::protocol::Request;
use vdpa_vduse::{Options, Task, TaskError};
use virtio_blk::Disk;
use virtq::testing::HeapDma;
use virtq::{DeviceMemory, DmaAllocator, SharedMemory};

use self::saboteur::{Fault, Plan, Saboteur};
use crate::driver::{ANSWER, Driver, create};
use crate::world::{DEADLINE, Shared, World};

/// What becomes of the device if the answer to a message goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nobody has noticed.
    Unharmed,
    /// Somebody has got an error, and after a reset everything is as before.
    Refused,
    Broken,
}

/// The table.
fn after(request: Request, fault: Fault) -> After {
    use After::{Broken, Refused, Unharmed};
    match (fault, request) {
        (Fault::Twice | Fault::OtherFirst | Fault::GarbageFirst | Fault::NextTask, _) => Unharmed,
        (Fault::Silent | Fault::Late | Fault::OnlyGarbage | Fault::Death, _) => Broken,
        (Fault::GivenUp, _) => Refused,
        // A reset is one, whatever the task says to it.
        (Fault::Refusal, Request::SetStatus(0)) => Unharmed,
        (Fault::Refusal, Request::SetStatus(_) | Request::Suspend) => Refused,
        (Fault::Refusal, _) => Broken,
        (Fault::Lie, Request::GetQueueState { .. }) => Broken,
        (Fault::Lie, _) => Unharmed,
    }
}

/// A resumption is a status, too, and one that a task must not refuse.
fn is_resumption(step: &str, fault: Fault) -> bool {
    step == "resume" && fault == Fault::Refusal
}

/// One life: what it has asked of the task, and what has failed.
struct Life<'w> {
    world: &'w World,
    driver: Driver,
    saboteur: Saboteur,
    errors: Vec<(&'static str, Option<OpError>)>,
}

impl<'w> Life<'w> {
    async fn new(world: &'w World, plan: Plan) -> Self {
        let task = create(world, Options::default());
        let saboteur = Saboteur::start(world, task, plan);
        Self {
            world,
            driver: Driver::take(world).await,
            saboteur,
            errors: Vec::new(),
        }
    }

    /// A step of the driver, which nobody waits for longer than for one answer.
    async fn step(
        &mut self,
        name: &'static str,
        act: impl AsyncFnOnce(&mut Driver) -> Result<(), OpError>,
    ) {
        let before = self.world.kernel.now();
        let result = self.saboteur.unless_given_up(act(&mut self.driver)).await;
        let waited = self.world.kernel.now() - before;
        assert!(
            waited <= DEADLINE + Duration::from_millis(100),
            "{name}: {waited:?}"
        );
        match result {
            Some(Ok(())) => {}
            Some(Err(error)) => self.errors.push((name, Some(error))),
            None => self.errors.push((name, None)),
        }
    }

    /// Everything that asks the task for something.
    async fn go(&mut self) {
        let resets = async |driver: &mut Driver| driver.reset().await;
        self.step("group", async |driver| {
            driver.claim.set_group_space(0, 0).await
        })
        .await;
        self.step("start", async |driver| driver.start(false).await)
            .await;
        self.work();
        self.step("suspend", async |driver| driver.claim.suspend().await)
            .await;
        if self.errors == [("suspend", Some(OpError::WrongState))] {
            assert!(self.work(), "it goes on");
        }
        self.step("queue state", async |driver| {
            driver.claim.queue_state(0).await.map(drop)
        })
        .await;
        self.step("resume", async |driver| driver.claim.resume().await)
            .await;
        self.work();
        self.step("stop queue", async |driver| {
            driver.claim.stop_queue(0).await
        })
        .await;
        self.step("start queue", async |driver| {
            driver.claim.start_queue(0).await
        })
        .await;
        self.work();
        let spare = spare(self.world);
        self.step("withdrawal", async |driver| {
            let first = driver.attachment.iova_range().first() + (1 << 32);
            let range = IovaRange::new(first, 4096).unwrap();
            let backing = Backing {
                memory: DeviceMemory::open(&spare).unwrap(),
                offset: 0,
            };
            driver
                .attachment
                .map(0, range, Permission::all(), backing)?;
            driver.attachment.unmap(0, range)?;
            driver.attachment.settle(0).await
        })
        .await;
        self.step("reset", resets).await;
        self.step("reset again", resets).await;
    }

    /// A request from the start to the end, if the task can do something. Whether it could.
    fn work(&mut self) -> bool {
        let Some(task) = self.saboteur.task() else {
            return false;
        };
        if !self.driver.offer(7) {
            return false;
        }
        let done = serve(&task).unwrap_or(false);
        if done {
            let (bytes, written) = self.driver.answered().expect("it was answered");
            assert_eq!((written, bytes), (ANSWER, vec![9; ANSWER]));
        }
        done
    }

    /// The device is what the table says, and goes.
    async fn end(mut self, after: After, name: &str) {
        let world = self.world;
        let task = self.saboteur.revive();
        if after == After::Broken {
            assert_eq!(task.receive(), Err(TaskError::Broken), "{name}");
            assert_eq!(task.take(0), Err(TaskError::Broken), "{name}");
            assert_eq!(task.inject_config_interrupt(), Err(TaskError::Broken));
            // Whoever tries again is told at once.
            let before = world.kernel.now();
            assert!(self.driver.start(false).await.is_err(), "{name}");
            assert_eq!(world.kernel.now(), before, "{name}");
            drop(task);
            self.driver.reset().await.unwrap();
        } else {
            assert_eq!(task.receive(), Ok(None), "{name}");
            drop(task);
            self.driver.start(true).await.expect(name);
            assert!(self.work(), "{name}: the device does not work");
            self.driver.reset().await.unwrap();
        }
        self.leave(name).await;
    }

    /// Whatever was wrong, everybody gets everything back.
    async fn leave(self, name: &str) {
        let world = self.world;
        let callbacks = Arc::downgrade(&self.driver.interrupts);
        self.saboteur.stop();
        self.driver.leave(world).await;
        world.kernel.sleep(2 * DEADLINE).await;
        assert_eq!(callbacks.strong_count(), 0, "{name}: a callback is kept");
        world.control.destroy("device").expect(name);
    }
}

/// A page that a driver may map.
fn spare(world: &World) -> SharedMemory {
    let heap = Arc::clone(world.platform.heap()) as Arc<dyn DmaAllocator>;
    SharedMemory::new(&heap, 4096).unwrap()
}

/// Answers one request with nines.
fn serve(task: &Task) -> Result<bool, TaskError> {
    let Some(job) = task.take(0)? else {
        return Ok(false);
    };
    let mut first = [0];
    task.read(job, 0, &mut first)?;
    assert_eq!(first, [7]);
    task.write(job, 0, &[9; ANSWER])?;
    task.complete(job)?;
    task.flush(0)?;
    Ok(true)
}

/// Lives once. Returns the messages that there were.
fn live(fault: Option<(usize, Fault)>) -> Vec<Request> {
    let world = World::new();
    let seen = world.platform.block_on(async {
        let mut life = Life::new(&world, fault).await;
        life.go().await;
        let seen = life.saboteur.seen();
        let (name, mut after) = match fault {
            None => ("nothing goes wrong".into(), After::Unharmed),
            Some((number, fault)) => {
                let request = seen[number];
                (format!("{fault:?} at {request:?}"), after(request, fault))
            }
        };
        let first = life.errors.first().copied();
        if let Some((number, fault)) = fault
            && first.is_some_and(|(step, _)| is_resumption(step, fault))
        {
            assert!(matches!(seen[number], Request::SetStatus(status) if status != 0));
            after = After::Broken;
        }
        // Nobody is told of what makes no difference: a reset, or memory that is gone anyhow.
        let quiet = fault.is_some_and(|(number, _)| {
            matches!(
                seen[number],
                Request::SetStatus(0) | Request::UpdateIotlb { .. }
            )
        });
        match after {
            After::Unharmed => assert_eq!(first, None, "{name}"),
            After::Refused => assert!(first.is_some(), "{name}: nobody is told"),
            After::Broken => assert!(first.is_some() || quiet, "{name}: nobody is told"),
        }
        life.end(after, &name).await;
        // Its name is free, and what comes next is a device like the first.
        let mut next = Life::new(&world, None).await;
        next.step("start", async |driver| driver.start(false).await)
            .await;
        assert!(next.work(), "after {name}");
        next.driver.reset().await.unwrap();
        next.end(After::Unharmed, &name).await;
        seen
    });
    assert_eq!(world.platform.heap().outstanding(), 0);
    assert_eq!(world.platform.tasks(), [""; 0]);
    seen
}

#[test]
fn each_message_goes_wrong_in_each_way_and_nothing_is_left() {
    let messages = live(None);
    // Every kind is there.
    for kind in [
        |request| matches!(request, Request::SetStatus(0)),
        |request| matches!(request, Request::SetStatus(1..)),
        |request| matches!(request, Request::SetGroupAddressSpace { .. }),
        |request| matches!(request, Request::SetQueueReady { ready: true, .. }),
        |request| matches!(request, Request::SetQueueReady { ready: false, .. }),
        |request| matches!(request, Request::GetQueueState { .. }),
        |request| matches!(request, Request::UpdateIotlb { .. }),
        |request| matches!(request, Request::Suspend),
    ] {
        assert!(messages.iter().copied().any(kind), "{messages:?}");
    }
    for number in 0..messages.len() {
        for fault in Fault::ALL {
            let seen = live(Some((number, fault)));
            assert_eq!(seen[..=number], messages[..=number], "the life is the same");
        }
    }
}

/// Both consumers use a disk whose task dies at the message of this number, and does not come back.
/// Whether there were so many.
async fn dies_under_its_users(world: &World, number: usize) -> bool {
    let medium = Shared::disk();
    let task = world.open_disk(&medium);
    let saboteur = Saboteur::serve(world, task, number, Box::new(medium));
    let before = world.kernel.now();
    let ops = world.control.attach("disk").unwrap();
    let device = world.add(ops).await;
    let mut died = saboteur.has_struck();
    if let Some(disk) = world.disks.take() {
        use_disk(&disk, died).await;
        died |= saboteur.has_struck();
    }
    world.vdpa.set_override(&device, Some("vhost_vdpa")).await;
    died |= saboteur.has_struck();
    let handle = world.vhost.open("vhost-vdpa-0", Default::default()).await;
    if let Ok(handle) = handle {
        let bus = virtio_bus::VirtioBus::new("client");
        let disks = crate::world::drivers(&bus).await;
        let options = vhost_vdpa::vhost_client::ClientOptions::default();
        let client =
            vhost_vdpa::vhost_client::Client::attach(handle, &world.kernel, &bus, options).await;
        died |= saboteur.has_struck();
        if let (Ok(_), Some(disk)) = (&client, disks.take()) {
            use_disk(&disk, died).await;
            died |= saboteur.has_struck();
        }
        if let Ok(client) = client {
            client.detach().await;
        }
    }
    died |= saboteur.has_struck();
    let waited = world.kernel.now() - before;
    assert!(
        waited <= 8 * DEADLINE,
        "message {number}: somebody waits {waited:?}"
    );
    world
        .vdpa
        .unregister(&device, vdpa::device::Removal::Orderly)
        .await;
    drop(device);
    saboteur.stop();
    world.kernel.sleep(2 * DEADLINE).await;
    world.control.destroy("disk").expect("nobody has it");
    died
}

async fn use_disk(disk: &Disk, died: bool) {
    let buffer = disk.buffer(512);
    let written = match buffer {
        Ok(buffer) => disk.write(0, buffer).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(!died || written.is_err(), "a dead task writes");
}

#[test]
fn whoever_uses_a_disk_is_told_that_its_task_is_gone() {
    let mut number = 0;
    loop {
        let world = World::new();
        let died = world
            .platform
            .block_on(dies_under_its_users(&world, number));
        assert_eq!(world.platform.heap().outstanding(), 0, "message {number}");
        assert_eq!(world.platform.tasks(), [""; 0], "message {number}");
        if !died {
            break;
        }
        number += 1;
    }
    assert!(number > 10, "both consumers ask for something: {number}");
}

#[test]
fn a_driver_without_memory_fails_alone() {
    let mut works = false;
    for kilobytes in 0..256 {
        let platform = FakePlatform::with_heap(HeapDma::limited(kilobytes << 10));
        let world = World::on(platform);
        let medium = Shared::disk();
        let stop = world.run_disk(&medium);
        works = world.platform.block_on(async {
            let ops = world.control.attach("disk").unwrap();
            let device = world.add(ops).await;
            let disk = world.disks.take();
            let written = match &disk {
                Some(disk) => match disk.buffer(512) {
                    Ok(buffer) => disk.write(0, buffer).await.is_ok(),
                    Err(_) => false,
                },
                None => false,
            };
            drop(disk);
            let orderly = vdpa::device::Removal::Orderly;
            world.vdpa.unregister(&device, orderly).await;
            written
        });
        stop.raise();
        world.platform.run_until_stalled();
        world.control.destroy("disk").unwrap();
        assert_eq!(world.platform.heap().outstanding(), 0);
        assert_eq!(world.platform.tasks(), [""; 0]);
        if works {
            break;
        }
    }
    assert!(works, "with enough memory it works");
}

/// A bus that lets a device go without a reset, as after a failure, leaves none of its memory mapped.
#[test]
fn a_device_that_is_let_go_keeps_no_memory() {
    let world = World::new();
    let _task = create(&world, Options::default());
    let range = IovaRange::new(1 << 40, 4096).unwrap();
    for _ in 0..2 {
        let ops = world.control.attach("device").unwrap();
        let memory = spare(&world);
        let backing = Backing {
            memory: DeviceMemory::open(&memory).unwrap(),
            offset: 0,
        };
        let DmaModel::Incremental(map) = ops.dma_model() else {
            panic!("a task's device translates");
        };
        // The second time there is nothing in the way.
        map.map(0, range, Permission::all(), backing).unwrap();
        drop(memory);
        assert!(world.platform.heap().outstanding() > 0, "it is mapped");
        drop(ops);
        assert_eq!(world.platform.heap().outstanding(), 0);
    }
}

#[test]
fn a_full_table_of_mappings_takes_no_more_and_keeps_the_rest() {
    let world = World::new();
    world.platform.block_on(async {
        let mut life = Life::new(&world, None).await;
        life.driver.start(false).await.unwrap();
        assert!(life.driver.offer(7));
        let memory = spare(&world);
        let attachment = Arc::clone(&life.driver.attachment);
        let first = attachment.iova_range().first() + (1 << 32);
        let map = |number: u64| {
            let range = IovaRange::new(first + number * 8192, 4096).unwrap();
            let backing = Backing {
                memory: DeviceMemory::open(&memory).unwrap(),
                offset: 0,
            };
            attachment.map(0, range, Permission::all(), backing)
        };
        let mapped = (0..10_000)
            .take_while(|number| map(*number).is_ok())
            .count();
        assert!((1_000..4_000).contains(&mapped), "{mapped}");
        let mapped = mapped as u64;
        for _ in 0..3 {
            assert!(map(mapped).is_err(), "still full");
        }
        let task = life.saboteur.task().unwrap();
        assert_eq!(serve(&task), Ok(true), "what was mapped before is there");
        drop(task);
        let range = IovaRange::new(first, 4096).unwrap();
        attachment.unmap(0, range).unwrap();
        map(0).unwrap();
        assert!(map(mapped).is_err(), "full again");
        assert!(life.driver.answered().is_some());
        for number in 0..mapped {
            let range = IovaRange::new(first + number * 8192, 4096).unwrap();
            attachment.unmap(0, range).unwrap();
        }
        drop(attachment);
        life.driver.reset().await.unwrap();
        life.end(After::Unharmed, "a full table").await;
    });
    assert_eq!(world.platform.heap().outstanding(), 0);
}

/// Nobody can attach to what is attached, or to what is gone.
#[test]
fn a_device_that_is_not_there_or_not_free_is_not_attached() {
    use vdpa_vduse::AttachError;
    let world = World::new();
    assert_eq!(
        world.control.attach("disk").err(),
        Some(AttachError::NoDevice)
    );
    let medium = Shared::disk();
    let options = Options::default();
    world
        .control
        .create(&medium.config("disk"), options)
        .unwrap();
    assert_eq!(
        world.control.attach("disk").err(),
        Some(AttachError::NotSetUp)
    );
    world.control.destroy("disk").unwrap();
    let task = world.open_disk(&medium);
    let ops = world.control.attach("disk").unwrap();
    assert_eq!(world.control.attach("disk").err(), Some(AttachError::Busy));
    drop(ops);
    // What was not taken back would keep it.
    let ops = world.control.attach("disk").unwrap();
    drop((ops, task));
    world.control.destroy("disk").unwrap();
}
