//! The thread of one ring: takes chains, lets the disk answer them, and sleeps when there are none.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use virtq::device::{
    Broken, Chain, CompleteError, Counters, DeviceConfig, DeviceQueue, Memory, NewError, PopError,
};
use virtq::{Pending, RingState};

use super::blk::Disk;
use super::memory::GuestMemory;
use super::wake::{Line, Stop, Wake, acknowledge};

/// Chains that are taken before the first of them is given back.
pub(super) const BATCH: u16 = 32;

/// Why a ring has come to a stop that nobody asked for.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The driver has broken the queue.
    #[error("the driver broke the queue: {0}")]
    Broken(#[from] Broken),
    /// A chain could not be given back.
    #[error("a chain could not be given back: {0}")]
    Complete(#[from] CompleteError),
    /// The front-end set up a ring that cannot be.
    #[error("the ring cannot be: {0}")]
    New(#[from] NewError),
    /// An event counter failed.
    #[error("an event counter failed: {0}")]
    Wake(#[from] io::Error),
}

/// What a ring leaves when it stops.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Where to go on; `None` after a failure.
    pub(super) state: Option<RingState>,
    pub(super) counters: Counters,
    pub(super) failure: Option<Failure>,
}

/// All that a ring needs to run.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) config: DeviceConfig,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) disk: Arc<Disk>,
    pub(super) kick: File,
    pub(super) call: Line,
    pub(super) error: Line,
}

/// A ring that runs.
#[derive(Debug)]
pub(super) struct Worker {
    thread: JoinHandle<Outcome>,
    stop: Stop,
}

impl Worker {
    pub(super) fn start(job: Job) -> io::Result<Self> {
        let stop = Stop::new()?;
        let wish = stop.clone();
        let thread = thread::Builder::new()
            .name("vring".into())
            .spawn(move || job.run(&wish))?;
        Ok(Self { thread, stop })
    }

    /// Lets the ring finish the chains it has taken, and stops it.
    pub(super) fn stop(self) -> io::Result<Outcome> {
        self.stop.raise()?;
        let outcome = self.thread.join();
        outcome.map_err(|_| io::Error::other("the thread of a ring panicked"))
    }
}

impl Job {
    fn run(&self, stop: &Stop) -> Outcome {
        let mut queue = match DeviceQueue::new(&self.config, self.memory.direct()) {
            Ok(queue) => queue,
            Err(error) => {
                return Outcome {
                    state: None,
                    counters: Counters::default(),
                    failure: Some(error.into()),
                };
            }
        };
        let failure = self.serve_until(stop, &mut queue).err();
        if failure.is_some() {
            // Nobody is left to tell if this fails.
            let _ = self.error.raise();
        }
        Outcome {
            state: queue.state().filter(|_| failure.is_none()),
            counters: queue.counters(),
            failure,
        }
    }

    fn serve_until<M: Memory>(
        &self,
        stop: &Stop,
        queue: &mut DeviceQueue<M>,
    ) -> Result<(), Failure> {
        loop {
            let limit = match self.round(queue)? {
                Pending::Yes => Some(Duration::ZERO),
                Pending::No => None,
            };
            match stop.wait_with(&self.kick, limit)? {
                Wake::Stop => return Ok(()),
                Wake::Ready => acknowledge(&self.kick)?,
                Wake::TimedOut => {}
            }
        }
    }

    /// Serves what is there, up to a batch. If that is nothing, the driver will kick.
    fn round<M: Memory>(&self, queue: &mut DeviceQueue<M>) -> Result<Pending, Failure> {
        let mut taken = take(queue)?;
        if taken.is_empty() {
            return Ok(queue.enable_notifications()?);
        }
        queue.disable_notifications()?;
        // The last first: a driver must take chains back in any order.
        while let Some(chain) = taken.pop() {
            let written = self.disk.serve(queue, &chain);
            queue.complete(chain, written)?;
        }
        if queue.notify() {
            self.call.raise()?;
        }
        Ok(Pending::Yes)
    }
}

/// As many chains as are there and belong into one batch.
fn take<M: Memory>(queue: &mut DeviceQueue<M>) -> Result<Vec<Chain>, Broken> {
    let mut taken = Vec::new();
    loop {
        match queue.pop() {
            Ok(Some(chain)) => taken.push(chain),
            Ok(None) | Err(PopError::Busy) => return Ok(taken),
            Err(PopError::Broken(broken)) => return Err(broken),
        }
    }
}
