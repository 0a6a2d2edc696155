//! Serves a device: answers the kernel's messages, and has a thread for each queue.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vduse_protocol::{Message, Outcome, QueueSetup, RawState, Request, Response};
use virtio::DeviceStatus;

use crate::control::Created;
use crate::device_file::DeviceFile;
use crate::error::{Error, QueueError};
use crate::journal::Journal;
use crate::memory::Space;
use crate::queue::{Origin, Queue, Recipe, Turn};
use crate::service::Service;

/// How soon an interrupt is tried again that came too early.
const SOON: Duration = Duration::from_millis(1);

/// What queues a device has.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// How many.
    pub count: u16,
    /// The most entries of one.
    pub size_max: u16,
    /// The most segments of a chain.
    pub chain_max: u16,
}

/// A device that is served.
#[derive(Debug)]
pub struct Server {
    device: Arc<DeviceFile>,
    service: Arc<dyn Service>,
    options: QueueOptions,
    journal: Option<Arc<Journal>>,
    space: Arc<Space>,
    slots: Vec<Arc<Slot>>,
    fatal: Arc<Fatal>,
    /// Whether the driver has started the device.
    started: bool,
}

/// Which queue ends the program, if one does.
#[derive(Debug)]
struct Fatal {
    queue: Mutex<Option<u16>>,
    /// Counts when there is one.
    event: OwnedFd,
}

/// A queue, which runs or not, and its thread's end of it.
#[derive(Debug)]
struct Slot {
    index: u16,
    device: Arc<DeviceFile>,
    service: Arc<dyn Service>,
    /// The driver's kicks, and those of the server.
    kick: OwnedFd,
    /// Held by whoever wants the queue from its thread, which waits here between turns.
    gate: Mutex<()>,
    queue: Mutex<Option<Queue>>,
    ended: AtomicBool,
    fatal: Arc<Fatal>,
}

impl Server {
    /// Takes a device over. One that another program has served goes on where that one was, as soon
    /// as it [runs](Self::run).
    ///
    /// # Errors
    /// What the system says.
    pub fn new(
        device: DeviceFile,
        created: Created,
        options: QueueOptions,
        journal: Option<Journal>,
        service: Arc<dyn Service>,
    ) -> Result<Self, Error> {
        let device = Arc::new(device);
        let mut server = Self {
            space: Space::new(Arc::clone(&device), 0),
            journal: journal.map(Arc::new),
            slots: Vec::new(),
            fatal: Arc::new(Fatal {
                queue: Mutex::default(),
                event: counter()?,
            }),
            started: false,
            device,
            service,
            options,
        };
        if created == Created::New
            && let Some(journal) = &server.journal
        {
            journal.clear();
        }
        for index in 0..options.count {
            server.set_up(index, created)?;
            server.add_thread(index)?;
        }
        if created == Created::Existing {
            server.resume()?;
        }
        Ok(server)
    }

    /// Serves the device until the kernel closes it, or the service panics.
    ///
    /// # Errors
    /// Always: why it has ended.
    pub fn run(mut self) -> Error {
        loop {
            if let Err(error) = self.step() {
                return error;
            }
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        let received = self.device.receive(self.fatal.event.as_fd())?;
        let Some(message) = received else {
            let queue = lock(&self.fatal.queue).unwrap_or_default();
            return Err(Error::Queue(queue, Box::new(QueueError::Panicked)));
        };
        let was_started = self.started;
        let response = self.answer(message);
        self.device.reply(&response)?;
        if self.started && !was_started {
            self.wake()?;
        }
        Ok(())
    }

    fn set_up(&self, index: u16, created: Created) -> Result<(), Error> {
        let setup = QueueSetup {
            index: index.into(),
            size_max: self.options.size_max,
            group: 0,
        };
        let done = self.device.set_up_queue(setup);
        // It was before, and is not to be any more once the driver has started the device.
        if created == Created::Existing {
            Ok(())
        } else {
            done
        }
    }

    fn add_thread(&mut self, index: u16) -> Result<(), Error> {
        let slot = Arc::new(Slot {
            index,
            device: Arc::clone(&self.device),
            service: Arc::clone(&self.service),
            kick: counter()?,
            gate: Mutex::default(),
            queue: Mutex::default(),
            ended: AtomicBool::new(false),
            fatal: Arc::clone(&self.fatal),
        });
        self.slots.push(Arc::clone(&slot));
        let thread = thread::Builder::new().name(format!("queue {index}"));
        let thread = thread.spawn(move || slot.serve());
        thread.map_err(Error::of("a thread"))?;
        Ok(())
    }

    /// Goes on with the queues that are in use. One that cannot go on is left to the driver, which
    /// can reset the device, as one is that it breaks later; unless there is no other.
    fn resume(&mut self) -> Result<(), Error> {
        let features = self.device.driver_features()?;
        let mut failed = Vec::new();
        for slot in &self.slots {
            match self.start_queue(slot, features, Origin::Ring) {
                Ok(started) => self.started |= started,
                Err(error) => failed.push((slot.index, error)),
            }
        }
        if !self.started {
            let first = failed.into_iter().next();
            return first.map_or(Ok(()), |(queue, error)| {
                Err(Error::Queue(queue, Box::new(error)))
            });
        }
        for (queue, error) in failed {
            self.service.failed(queue, &error);
        }
        self.wake()
    }

    fn answer(&mut self, message: Message) -> Response {
        let mut response = Response::new(message.id, Outcome::Failed);
        let done = match message.request {
            Request::GetQueueState { queue } => match self.state(queue) {
                Ok(state) => {
                    response.queue = queue;
                    response.state = state;
                    true
                }
                Err(_) => false,
            },
            Request::SetStatus(0) => {
                self.stop();
                true
            }
            Request::SetStatus(status) => self.set_status(DeviceStatus::from_bits_retain(status)),
            Request::UpdateIotlb {
                start,
                last,
                address_space,
            } => {
                if address_space == self.space.number() {
                    self.withdraw(start, last);
                }
                true
            }
            Request::SetGroupAddressSpace {
                group: 0,
                address_space,
            } if !self.started => {
                self.space = Space::new(Arc::clone(&self.device), address_space);
                true
            }
            // What was not agreed on is not asked for.
            Request::SetGroupAddressSpace { .. }
            | Request::SetQueueReady { .. }
            | Request::Suspend => false,
        };
        if done {
            response.outcome = Outcome::Done;
        }
        response
    }

    fn set_status(&mut self, status: DeviceStatus) -> bool {
        let agreed = DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK;
        if !status.intersects(agreed) || self.started {
            return true;
        }
        let Ok(features) = self.device.driver_features() else {
            return false;
        };
        if !self.service.accepts(features) {
            return false;
        }
        if !status.contains(DeviceStatus::DRIVER_OK) {
            return true;
        }
        match self.start(features) {
            Ok(()) => {
                self.started = true;
                true
            }
            Err((queue, error)) => {
                self.service.failed(queue, &error);
                self.stop();
                false
            }
        }
    }

    /// Starts the queues that are ready.
    fn start(&self, features: u64) -> Result<(), (u16, QueueError)> {
        for slot in &self.slots {
            let started = self.start_queue(slot, features, Origin::Driver);
            started.map_err(|error| (slot.index, error))?;
        }
        Ok(())
    }

    /// Starts a queue if it is ready.
    fn start_queue(&self, slot: &Slot, features: u64, origin: Origin) -> Result<bool, QueueError> {
        let info = self.device.queue_info(slot.index)?;
        let journal = self.journal.as_ref();
        let journal = journal.and_then(|journal| journal.queue(slot.index));
        if !info.ready {
            // A note would be of an earlier driver.
            if let Some(journal) = &journal {
                journal.forget();
            }
            return Ok(false);
        }
        // What the program before has not started, the driver is about to: until it has, the kernel
        // interrupts nobody. A note may have been lost.
        let noted = journal.as_ref().is_some_and(|it| it.read().is_some());
        if origin == Origin::Ring && !noted && !self.device.interrupt(slot.index)? {
            return Ok(false);
        }
        let queue = Queue::new(Recipe {
            info: &info,
            features,
            chain_max: self.options.chain_max,
            space: &self.space,
            journal,
            origin,
        })?;
        self.device.set_kick(slot.index, slot.kick.as_fd())?;
        *slot.take() = Some(queue);
        Ok(true)
    }

    /// Lets all threads look at their queues.
    fn wake(&self) -> Result<(), Error> {
        self.slots.iter().try_for_each(|slot| slot.wake())
    }

    fn stop(&mut self) {
        self.started = false;
        for slot in &self.slots {
            if let Some(queue) = slot.take().take() {
                queue.end();
            }
        }
        // The driver's memory is no business of the device any more.
        self.space = Space::new(Arc::clone(&self.device), self.space.number());
    }

    fn state(&self, queue: u32) -> Result<RawState, Error> {
        let slot = self
            .slots
            .iter()
            .find(|slot| u32::from(slot.index) == queue);
        let slot = slot.ok_or(Error::NoQueue(queue))?;
        let state = slot.take().as_ref().and_then(Queue::state);
        match state {
            Some(state) => Ok(state),
            None => Ok(self.device.queue_info(slot.index)?.state),
        }
    }

    /// Unmaps what lies in a range of addresses.
    fn withdraw(&self, start: u64, last: u64) {
        self.space.withdraw(start, last);
        for slot in &self.slots {
            if let Some(queue) = slot.take().as_mut() {
                queue.refresh();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.ended.store(true, Ordering::Release);
            // A thread that cannot be woken sleeps until the program ends.
            let _ = slot.wake();
        }
    }
}

impl Slot {
    /// The life of the queue's thread.
    fn serve(&self) {
        while !self.ended.load(Ordering::Acquire) {
            match self.turn() {
                Turn::More => {}
                Turn::Later => thread::sleep(SOON),
                Turn::Idle => {
                    // A counter cannot fail to be read; if it does, the next turn is for nothing.
                    let _ = rustix::io::read(&self.kick, &mut [0; 8]);
                }
            }
        }
    }

    fn turn(&self) -> Turn {
        drop(lock(&self.gate));
        let mut queue = lock(&self.queue);
        let Some(running) = queue.as_mut() else {
            return Turn::Idle;
        };
        let turn = || running.turn(self.index, &self.device, &*self.service);
        // The queue is not looked at again.
        let turn = catch_unwind(AssertUnwindSafe(turn)).unwrap_or(Err(QueueError::Panicked));
        turn.unwrap_or_else(|error| {
            *queue = None;
            drop(queue);
            if matches!(error, QueueError::Panicked) {
                self.fatal.tell(self.index);
            } else {
                self.service.failed(self.index, &error);
            }
            Turn::Idle
        })
    }

    /// Takes the queue from its thread, as soon as that has ended its turn.
    fn take(&self) -> MutexGuard<'_, Option<Queue>> {
        let _gate = lock(&self.gate);
        lock(&self.queue)
    }

    fn wake(&self) -> Result<(), Error> {
        count(&self.kick)
    }
}

impl Fatal {
    fn tell(&self, queue: u16) {
        lock(&self.queue).get_or_insert(queue);
        // A counter cannot fail to be added to; if it does, the panic has still been printed.
        let _ = count(&self.event);
    }
}

fn counter() -> Result<OwnedFd, Error> {
    eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| Error::of("eventfd")(error.into()))
}

fn count(counter: &OwnedFd) -> Result<(), Error> {
    let written = rustix::io::write(counter, &1_u64.to_ne_bytes());
    written.map_err(|error| Error::of("eventfd")(error.into()))?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
