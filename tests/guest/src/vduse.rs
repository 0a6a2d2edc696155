//! A disk that a task serves, under both kinds of consumers, with a task that ends in between.

#[path = "../../../vdpa/vduse/examples/ram_disk/disk.rs"]
mod disk;
mod restarts;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::ready;

use embassy_futures::select::select;
use spin::Mutex;
use vdpa::conformance::{Service, Subject};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::{Platform, VdpaOps};
use vdpa_vduse::{Control, Options, Task, TaskDevice, TaskError, Turn, serve};
use virtio_blk::BlkError;
use virtq::Event;

use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::parents::CAPACITY;
use crate::vhost::in_turn;
use crate::{conformance, ensure, ensure_eq, guest_tests};

use disk::RamDisk;

guest_tests![
    disk_of_a_task_conforms,
    disk_of_a_task_serves_kernel_and_client_in_turn,
    disk_of_a_task_survives_its_task,
];

/// What the tests call the device.
const NAME: &str = "ram";

type Medium = RamDisk<Box<[u8]>>;

/// The disk, which outlives its tasks.
#[derive(Clone)]
struct Shared(Arc<Mutex<Medium>>);

impl TaskDevice for Shared {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        self.0.lock().serve(task)
    }
}

/// Takes requests and answers none.
struct Hoarder;

impl TaskDevice for Hoarder {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        while task.take(0)?.is_some() {}
        Ok(Turn::Idle)
    }
}

/// A task at work, until it is told to end.
struct Running {
    name: String,
    stop: Arc<Event>,
}

impl Running {
    fn start(bench: &Bench, task: Task, mut device: impl TaskDevice + 'static) -> Self {
        let name = task.name().into();
        let stop = Arc::<Event>::default();
        let stopped = Arc::clone(&stop);
        let work = async move {
            select(stopped.wait(), serve(&task, &mut device)).await;
        };
        bench.system.platform().spawn("task", Box::pin(work));
        Self { name, stop }
    }

    /// Waits until the task has gone, and takes its device over.
    async fn end(self, bench: &Bench) -> Result<Task, Failure> {
        self.stop.raise();
        bench
            .patiently(async {
                loop {
                    if let Ok(task) = control(bench).open(&self.name) {
                        break task;
                    }
                    embassy_futures::yield_now().await;
                }
            })
            .await
    }
}

fn control(bench: &Bench) -> &Arc<Control> {
    bench.system.vduse()
}

/// A device with a task that serves it.
fn start(bench: &Bench, name: &str) -> Result<(Shared, Running), Failure> {
    let memory = alloc::vec![0; CAPACITY as usize].into_boxed_slice();
    let medium = RamDisk::new(memory, 1);
    let created = control(bench).create(&medium.config(name), Options::default());
    created.map_err(|_| "the device is created")?;
    let task = control(bench).open(name);
    let task = task.map_err(|_| "the device is opened")?;
    medium.set_up(&task).map_err(|_| "its queues are set up")?;
    let medium = Shared(Arc::new(Mutex::new(medium)));
    let running = Running::start(bench, task, medium.clone());
    Ok((medium, running))
}

async fn finish(bench: &Bench, running: Running) -> Outcome {
    let name = running.name.clone();
    drop(running.end(bench).await?);
    let destroyed = control(bench).destroy(&name);
    ensure!(destroyed.is_ok(), "{destroyed:?}");
    Ok(())
}

fn attach(bench: &Bench, name: &str) -> Result<Box<dyn VdpaOps>, Failure> {
    let attached = control(bench).attach(name);
    Ok(attached.map_err(|_| "the device is attached")?)
}

struct Disk {
    control: Arc<Control>,
    platform: Arc<dyn Platform>,
}

impl Subject for Disk {
    fn name(&self) -> &str {
        NAME
    }

    fn device_type(&self) -> u32 {
        2
    }

    fn abilities(&self) -> Abilities {
        Abilities::all() - Abilities::DIRTY_LOG
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform)
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let attached = self.control.attach(NAME);
        Box::pin(ready(attached.map_err(|_| OpError::Invalid)))
    }

    fn service(&self) -> Service {
        Service::Blk
    }
}

async fn disk_of_a_task_conforms(bench: &Bench) -> Outcome {
    let (_, running) = start(bench, NAME)?;
    let subject = Disk {
        control: Arc::clone(control(bench)),
        platform: Arc::clone(bench.system.platform()),
    };
    let outcome = conformance::passes(&subject).await;
    finish(bench, running).await?;
    outcome
}

async fn disk_of_a_task_serves_kernel_and_client_in_turn(bench: &Bench) -> Outcome {
    let (_, running) = start(bench, NAME)?;
    let device = bench.register(attach(bench, NAME)?).await?;
    in_turn(bench, &device, 0).await?;
    bench.unregister(&device).await?;
    drop(device);
    finish(bench, running).await
}

async fn disk_of_a_task_survives_its_task(bench: &Bench) -> Outcome {
    let (medium, running) = start(bench, NAME)?;
    let device = bench.register(attach(bench, NAME)?).await?;
    let disk = bench.new_disk(&device).await?;
    disk.write_from(0, &[0x11; 512]).await?;
    // What the second task has taken, the third one answers.
    let hoarding = Running::start(bench, running.end(bench).await?, Hoarder);
    let write = async {
        disk.write_from(8, &[0x22; 512]).await?;
        Ok::<_, BlkError>(())
    };
    let restart = async {
        bench.sleep(core::time::Duration::from_millis(20)).await;
        let task = hoarding.end(bench).await?;
        Ok::<_, Failure>(Running::start(bench, task, medium))
    };
    let (written, running) = embassy_futures::join::join(bench.patiently(write), restart).await;
    written??;
    let mut read = [0; 512];
    for (sector, expected) in [(0, 0x11), (8, 0x22)] {
        disk.read_into(sector, &mut read).await?;
        ensure_eq!(read.iter().find(|byte| **byte != expected), None);
    }
    drop(disk);
    bench.unregister(&device).await?;
    drop(device);
    finish(bench, running?).await
}
