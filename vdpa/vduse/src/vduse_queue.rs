//! One queue while it is in use: its ring, and the requests that the task has.

use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::dma::AddressSpace;
use virtq::device::{
    Broken, Chain, CompleteError, DeviceConfig, DeviceQueue, DeviceTlb, Fault, NewError, PopError,
    TransferError,
};
use virtq::{Pending, RingState};

use super::error::TaskError;

/// A request that a task has. It names it, and holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    queue: u16,
    slot: u16,
    serial: u64,
    readable: u64,
    writable: u64,
}

impl Job {
    /// The queue that it is from.
    #[must_use]
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// How many bytes can be read from it.
    #[must_use]
    pub fn readable(&self) -> u64 {
        self.readable
    }

    /// How many bytes can be written to it.
    #[must_use]
    pub fn writable(&self) -> u64 {
        self.writable
    }
}

/// The device's end of a queue.
pub(super) struct VduseQueue {
    index: u16,
    queue: DeviceQueue<DeviceTlb<Arc<AddressSpace>>>,
    slots: Vec<Option<InFlight>>,
    /// The slots that hold nothing.
    free: Vec<u16>,
    /// Requests that a task has left behind when it ended.
    orphans: usize,
    /// Whether the driver has been asked to notify of the next chain.
    asleep: bool,
    /// Whether something was completed that the driver has not been shown.
    used: bool,
    /// Whether the task gets nothing more: the queue is about to be stopped.
    pub(super) stopping: bool,
    dma_faults: u64,
}

/// A chain that a task has.
struct InFlight {
    chain: Chain,
    serial: u64,
    /// How many bytes, from the first one on, the task has written.
    filled: u64,
    /// Whether the task that had it is gone.
    is_orphan: bool,
}

impl VduseQueue {
    pub(super) fn new(
        index: u16,
        config: &DeviceConfig,
        space: &Arc<AddressSpace>,
    ) -> Result<Self, NewError> {
        let slots = config.in_flight_max;
        Ok(Self {
            index,
            queue: DeviceQueue::new(config, DeviceTlb::new(Arc::clone(space)))?,
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            orphans: 0,
            asleep: false,
            used: false,
            stopping: false,
            dma_faults: 0,
        })
    }

    /// The next request: one that a former task has left behind, or one of the driver. If there is
    /// none, the driver has been asked to notify. `serial` numbers requests, over all queues and
    /// times.
    pub(super) fn take(&mut self, serial: &mut u64) -> Option<Job> {
        if self.stopping {
            return None;
        }
        if self.orphans > 0 {
            return self.take_orphan();
        }
        let slot = *self.free.last()?;
        let chain = self.pop()?;
        self.free.pop();
        *serial += 1;
        let place = &mut self.slots[usize::from(slot)];
        let job = InFlight {
            chain,
            serial: *serial,
            filled: 0,
            is_orphan: false,
        };
        Some(place.insert(job).job(self.index, slot))
    }

    fn pop(&mut self) -> Option<Chain> {
        match self.queue.pop() {
            Ok(Some(chain)) => {
                self.asleep = false;
                Some(chain)
            }
            Ok(None) if !self.asleep => self.sleep_or_pop(),
            Ok(None) | Err(PopError::Busy | PopError::Broken(_)) => None,
        }
    }

    /// Asks the driver to notify of the next chain, and takes one that has come meanwhile.
    #[cold]
    fn sleep_or_pop(&mut self) -> Option<Chain> {
        // That the driver has broken the queue is noticed by the caller.
        let pending = self.queue.enable_notifications().unwrap_or(Pending::No);
        // Also if one has come: a driver that goes back on its word is not looked at for ever.
        self.asleep = true;
        match pending {
            Pending::Yes => self.pop(),
            Pending::No => None,
        }
    }

    /// The oldest request that was left behind.
    fn take_orphan(&mut self) -> Option<Job> {
        let places = (0u16..).zip(&mut self.slots);
        let orphans = places.filter_map(|(slot, place)| {
            let job = place.as_mut().filter(|job| job.is_orphan)?;
            Some((slot, job))
        });
        let (slot, oldest) = orphans.min_by_key(|(_, job)| job.serial)?;
        oldest.is_orphan = false;
        oldest.filled = 0;
        let job = oldest.job(self.index, slot);
        self.orphans -= 1;
        Some(job)
    }

    /// The task is gone; the next one gets what it has not answered.
    pub(super) fn abandon(&mut self) {
        for job in self.slots.iter_mut().flatten() {
            job.is_orphan = true;
        }
        self.orphans = self.slots.iter().flatten().count();
    }

    /// Copies readable bytes of a request, from `offset` on. Returns how many there were.
    pub(super) fn read(
        &mut self,
        job: Job,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<usize, TaskError> {
        let held = find(&mut self.slots, job)?;
        let copied = self.queue.pull(&held.chain, offset, bytes);
        copied.map_err(|error| fault(&mut self.dma_faults, error))
    }

    /// Copies bytes into a request, from `offset` of its writable bytes on. Returns how many had
    /// room.
    pub(super) fn write(
        &mut self,
        job: Job,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, TaskError> {
        let held = find(&mut self.slots, job)?;
        // The last byte is where many devices have a status.
        let copied = match *bytes {
            [byte]
                if held.chain.writable_len().checked_sub(1) == Some(offset)
                    && self.queue.push_last(&held.chain, byte) =>
            {
                Ok(1)
            }
            _ => self.queue.push(&held.chain, offset, bytes),
        };
        let done = copied.unwrap_or_else(|error| error.done);
        if offset <= held.filled {
            held.filled = held.filled.max(offset.saturating_add(done as u64));
        }
        copied.map_err(|error| fault(&mut self.dma_faults, error))
    }

    /// Gives a request back. The driver is told how many bytes from the first one on have been
    /// written, whatever the task believes.
    pub(super) fn complete(&mut self, job: Job) -> Result<(), TaskError> {
        find(&mut self.slots, job)?;
        let held = self.slots[usize::from(job.slot)].take();
        let InFlight { chain, filled, .. } = held.ok_or(TaskError::NoJob)?;
        self.free.push(job.slot);
        let written = u32::try_from(filled).unwrap_or(u32::MAX);
        match self.queue.complete(chain, written) {
            Ok(()) => self.used = true,
            // The caller looks at it.
            Err(CompleteError::Broken(_)) => {}
            Err(CompleteError::Foreign) => debug_assert!(false, "a chain of this queue"),
        }
        Ok(())
    }

    /// Shows the driver what was completed. Whether it wants to be interrupted.
    pub(super) fn flush(&mut self) -> bool {
        if !self.used {
            return false;
        }
        self.used = false;
        self.queue.notify()
    }

    /// Puts back what the task has not answered, the latest first. False, if a later one was
    /// answered: then the queue has no state.
    pub(super) fn put_back(&mut self) -> bool {
        loop {
            let places = self.slots.iter_mut();
            let latest = places
                .filter(|place| place.is_some())
                .max_by_key(|place| place.as_ref().map(|job| job.serial));
            let Some(place) = latest else {
                break;
            };
            let Some(job) = place.take() else { break };
            if let Err(chain) = self.queue.put_back(job.chain) {
                *place = Some(InFlight { chain, ..job });
                return false;
            }
        }
        let slots = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        self.free = (0..slots).rev().collect();
        self.orphans = 0;
        true
    }

    /// Drops what is known of memory that was withdrawn.
    pub(super) fn refresh(&mut self) {
        self.queue.refresh();
    }

    /// How the driver has broken the queue, if it has.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.queue.broken()
    }

    /// Where the queue stands, if nothing is under way.
    pub(super) fn state(&self) -> Option<RingState> {
        self.queue.state()
    }

    /// Requests taken from the driver, and accesses to memory that is not mapped.
    pub(super) fn counters(&self) -> (u64, u64) {
        (self.queue.counters().popped, self.dma_faults)
    }
}

impl InFlight {
    fn job(&self, queue: u16, slot: u16) -> Job {
        Job {
            queue,
            slot,
            serial: self.serial,
            readable: self.chain.readable_len(),
            writable: self.chain.writable_len(),
        }
    }
}

/// The request that a task names, if it has it.
fn find(slots: &mut [Option<InFlight>], job: Job) -> Result<&mut InFlight, TaskError> {
    let place = slots.get_mut(usize::from(job.slot));
    let held = place.and_then(Option::as_mut);
    held.filter(|held| held.serial == job.serial && !held.is_orphan)
        .ok_or(TaskError::NoJob)
}

#[cold]
fn fault(faults: &mut u64, error: TransferError) -> TaskError {
    *faults += 1;
    let fault: Fault = error.fault;
    TaskError::Fault(fault)
}
