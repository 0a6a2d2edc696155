//! Disks whose tasks end again and again with requests in hand, under traffic of the kernel and of a
//! client.
//!
//! The kernel's command line may say for how long: with `restarts=SECONDS` each second once.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use core::array;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use embassy_futures::join::{join, join_array};
use embassy_futures::yield_now;
use guest_tests::disk::{SECTOR_BYTES, fill, first_difference};
use vdpa_vduse::{Job, Task, TaskDevice, TaskError, Turn};
use virtio_blk::Disk;

use super::{Running, Shared, attach, finish, start};
use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::parents::ClientSide;
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![disks_whose_tasks_end_lose_and_double_nothing];

/// Unless the command line says for how long.
const RESTARTS: u64 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// Tasks that write to a disk, each to places of its own.
const WRITERS: usize = 8;
/// What one of them writes at a time, in sectors.
const STEP: u64 = 4;
/// What is written differs from what any other test leaves there.
const SEED: u64 = 0x3c6e_f372_fe94_f82b;
/// The most requests that a task has in hand.
const IN_HAND: usize = 16;

/// Requests of a disk, over all of its tasks.
#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    answered: AtomicU64,
    /// Those that a task had when it ended.
    left: AtomicU64,
}

impl Counts {
    fn in_hand(&self) -> u64 {
        let gone = self.answered.load(Ordering::Relaxed) + self.left.load(Ordering::Relaxed);
        self.taken.load(Ordering::Relaxed) - gone
    }
}

/// A disk that answers the half of what it has in a turn.
struct Lagging {
    medium: Shared,
    counts: Arc<Counts>,
    jobs: VecDeque<Job>,
}

impl Lagging {
    fn forget(&mut self) {
        let left = self.jobs.drain(..).count();
        self.counts.left.fetch_add(left as u64, Ordering::Relaxed);
    }
}

impl Drop for Lagging {
    fn drop(&mut self) {
        self.forget();
    }
}

impl TaskDevice for Lagging {
    fn stop(&mut self) {
        self.forget();
    }

    fn let_go(&mut self) {
        self.forget();
    }

    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        while self.jobs.len() < IN_HAND
            && let Some(job) = task.take(0)?
        {
            self.jobs.push_back(job);
            self.counts.taken.fetch_add(1, Ordering::Relaxed);
        }
        for _ in 0..self.jobs.len().div_ceil(2) {
            let Some(job) = self.jobs.pop_front() else {
                break;
            };
            self.counts.answered.fetch_add(1, Ordering::Relaxed);
            self.medium.0.lock().answer(task, job)?;
        }
        task.flush(0)?;
        Ok(if self.jobs.is_empty() {
            Turn::Idle
        } else {
            Turn::More
        })
    }
}

/// A disk and its task.
struct Served {
    medium: Shared,
    counts: Arc<Counts>,
    running: Running,
}

impl Served {
    async fn new(bench: &Bench, name: &'static str) -> Result<Self, Failure> {
        let (medium, running) = start(bench, name)?;
        let served = Self {
            medium,
            counts: Arc::default(),
            running,
        };
        served.restarted(bench).await
    }

    async fn restarted(self, bench: &Bench) -> Result<Self, Failure> {
        let task = self.running.end(bench).await?;
        let device = Lagging {
            medium: self.medium.clone(),
            counts: Arc::clone(&self.counts),
            jobs: VecDeque::new(),
        };
        let running = Running::start(bench, task, device);
        Ok(Self { running, ..self })
    }

    /// The same at a moment when the task has requests.
    async fn interrupted(self, bench: &Bench) -> Result<Self, Failure> {
        let busy = async {
            while self.counts.in_hand() == 0 {
                yield_now().await;
            }
        };
        bench.patiently(busy).await?;
        self.restarted(bench).await
    }
}

async fn disks_whose_tasks_end_lose_and_double_nothing(bench: &Bench) -> Outcome {
    let seconds = bench.system.command_line().get("restarts");
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let (restarts, pause) = match seconds {
        Some(seconds) => (seconds, Duration::from_secs(1)),
        None => (RESTARTS, PAUSE),
    };
    let mut kernels = Served::new(bench, "kernels").await?;
    let mut clients = Served::new(bench, "clients").await?;
    let device = bench.register(attach(bench, "kernels")?).await?;
    let disk = bench.new_disk(&device).await?;
    let lent = bench.register(attach(bench, "clients")?).await?;
    // The kernel has it first.
    drop(bench.new_disk(&lent).await?);
    let client = ClientSide::start(bench, bench.open(&lent).await?).await?;
    let remote = client.disk()?;

    let load = Load::default();
    let restarting = async {
        for _ in 0..restarts {
            bench.sleep(pause).await;
            kernels = kernels.interrupted(bench).await?;
            clients = clients.interrupted(bench).await?;
        }
        Ok::<_, Failure>((kernels, clients))
    };
    let restarting = async {
        let restarted = restarting.await;
        load.ended.set(true);
        restarted
    };
    let traffic = join(load.on(bench, &disk), load.on(bench, &remote));
    let (restarted, (of_kernel, of_client)) = join(restarting, traffic).await;
    of_kernel?;
    of_client?;
    let (kernels, clients) = restarted?;
    for served in [&kernels, &clients] {
        let left = served.counts.left.load(Ordering::Relaxed);
        ensure!(left >= restarts, "{left} requests were with an ended task");
        ensure_eq!(served.counts.in_hand(), 0);
        kernel::log::info!(
            "{restarts} restarts: {} requests taken, {left} of them left behind",
            served.counts.taken.load(Ordering::Relaxed)
        );
    }
    kernel::log::info!("{} steps were written and read back", load.steps.get());

    drop((disk, remote));
    client.end().await;
    bench.give_back(&lent).await;
    for device in [device, lent] {
        bench.unregister(&device).await?;
    }
    finish(bench, kernels.running).await?;
    finish(bench, clients.running).await
}

/// Writers at work.
#[derive(Default)]
struct Load {
    ended: Cell<bool>,
    steps: Cell<u64>,
}

impl Load {
    async fn on(&self, bench: &Bench, disk: &Disk) -> Outcome {
        let writers = array::from_fn::<_, WRITERS, _>(|place| self.write(bench, disk, place));
        let ended = join_array(writers).await;
        // With one that has failed the others come to an end, too.
        ended.into_iter().collect()
    }

    /// Writes to the same place again and again. What was written before is there until then.
    async fn write(&self, bench: &Bench, disk: &Disk, place: usize) -> Outcome {
        let first = place as u64 * STEP;
        let mut bytes = vec![0; STEP as usize * SECTOR_BYTES];
        for version in 0.. {
            if self.ended.get() {
                break;
            }
            fill(&mut bytes, first, SEED + version);
            bench
                .patiently(disk.write_from(first, &bytes))
                .await
                .inspect_err(|_| self.ended.set(true))??;
            bytes.fill(0);
            bench
                .patiently(disk.read_into(first, &mut bytes))
                .await
                .inspect_err(|_| self.ended.set(true))??;
            let wrong = first_difference(&bytes, first, SEED + version);
            self.ended.set(self.ended.get() || wrong.is_some());
            ensure_eq!(wrong, None);
            self.steps.set(self.steps.get() + 1);
        }
        Ok(())
    }
}
