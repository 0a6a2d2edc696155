//! One queue of a simulated device while it is in use.

use alloc::sync::Arc;
use core::mem;
use core::time::Duration;

use vdpa::dma::AddressSpace;
use virtq::device::{
    Broken, Chain, CompleteError, DeviceConfig, DeviceQueue, DeviceTlb, Fault, NewError, PopError,
    TransferError,
};
use virtq::{Pending, RingState};

use super::faults::Plan;
use super::page_log::PageLog;

/// The device's end of a queue, with what a turn of the worker must remember of it.
pub(super) struct SimQueue {
    queue: DeviceQueue<DeviceTlb<Arc<AddressSpace>>>,
    faults: Plan,
    log: Arc<PageLog>,
    /// Whether something was completed that the driver has not been asked about.
    used: bool,
    /// Whether the driver has been asked to notify of the next chain.
    asleep: bool,
    /// When the driver is shown what was completed, if that is later.
    due: Option<Duration>,
    /// Accesses to memory that was not mapped, or not so, since they were last taken.
    dma_faults: u64,
}

/// Whether a driver is to be interrupted, or when.
pub(super) enum Shown {
    Nothing,
    Interrupt,
    /// Nothing before that time.
    Later(Duration),
}

impl SimQueue {
    pub(super) fn new(
        config: &DeviceConfig,
        space: &Arc<AddressSpace>,
        log: &Arc<PageLog>,
        faults: &Plan,
    ) -> Result<Self, NewError> {
        Ok(Self {
            queue: DeviceQueue::new(config, DeviceTlb::new(Arc::clone(space)))?,
            faults: faults.clone(),
            log: Arc::clone(log),
            used: false,
            asleep: false,
            due: None,
            dma_faults: 0,
        })
    }

    /// The next chain, if there is one; otherwise the driver has been asked to notify of it. A
    /// queue that the driver has broken has none any more.
    #[inline(never)]
    pub(super) fn take(&mut self) -> Option<Chain> {
        match self.queue.pop() {
            Ok(Some(chain)) => {
                self.asleep = false;
                Some(chain)
            }
            Ok(None) if !self.asleep => self.sleep_or_take(),
            Ok(None) | Err(PopError::Busy | PopError::Broken(_)) => None,
        }
    }

    /// Asks the driver to notify of the next chain, and takes one that has come meanwhile.
    #[cold]
    fn sleep_or_take(&mut self) -> Option<Chain> {
        // A broken queue is looked at at the end of the turn.
        let pending = self.queue.enable_notifications().unwrap_or(Pending::No);
        // Also if one has come: a driver that goes back on its word is not looked at for ever.
        self.asleep = true;
        match pending {
            Pending::Yes => self.take(),
            Pending::No => None,
        }
    }

    /// Copies the readable bytes of a chain from `offset` on, as many as `bytes` takes. Returns how
    /// many there were.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        chain: &Chain,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<usize, Fault> {
        match self.queue.pull(chain, offset, bytes) {
            Ok(copied) => Ok(copied),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Copies `bytes` to the writable bytes of a chain from `offset` on. Returns how many had room.
    #[inline(always)]
    pub(super) fn write(
        &mut self,
        chain: &Chain,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, Fault> {
        if self.log.is_kept() {
            return self.write_logged(chain, offset, bytes);
        }
        match self.queue.push(chain, offset, bytes) {
            Ok(copied) => Ok(copied),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes the last of the writable bytes of a chain. Whether it could be reached.
    #[inline]
    pub(super) fn write_last(&mut self, chain: &Chain, byte: u8) -> bool {
        let written = self.queue.push_last(chain, byte);
        if !written {
            self.dma_faults += 1;
        } else if self.log.is_kept() {
            self.log_written(chain, chain.writable_len() - 1, 1);
        }
        written
    }

    #[cold]
    fn write_logged(&mut self, chain: &Chain, offset: u64, bytes: &[u8]) -> Result<usize, Fault> {
        let result = self.queue.push(chain, offset, bytes);
        let done = result.unwrap_or_else(|error| error.done);
        self.log_written(chain, offset, done as u64);
        result.map_err(|error| self.failed(error))
    }

    #[cold]
    fn log_written(&mut self, chain: &Chain, offset: u64, done: u64) {
        self.dma_faults += u64::from(self.log.written(chain, offset, done).is_err());
    }

    #[cold]
    fn failed(&mut self, error: TransferError) -> Fault {
        self.dma_faults += 1;
        error.fault
    }

    /// Gives a chain back, of which the first `written` writable bytes were written. The driver
    /// sees it at the end of the turn.
    #[inline]
    pub(super) fn complete(&mut self, chain: Chain, written: u32) {
        let short = self.faults.is_armed() && written > 0 && self.faults.takes_write();
        let written = if short { written - 1 } else { written };
        match self.queue.complete(chain, written) {
            Ok(()) => self.used = true,
            // It is looked at at the end of the turn.
            Err(CompleteError::Broken(_)) => {}
            Err(CompleteError::Foreign) => debug_assert!(false, "a model mixes its queues up"),
        }
    }

    /// Puts back the chain that was taken last: the next is the same again.
    pub(super) fn put_back(&mut self, chain: Chain) {
        // A queue that its driver has broken takes nothing back; its driver gets nothing back
        // either.
        if let Err(chain) = self.queue.put_back(chain) {
            self.complete(chain, 0);
        }
    }

    /// Shows the driver what was completed, unless that is delayed.
    #[inline]
    pub(super) fn show(&mut self, now: impl FnOnce() -> Duration) -> Shown {
        if !self.used {
            return Shown::Nothing;
        }
        if self.faults.is_armed() || self.due.is_some() {
            let now = now();
            let due = *self
                .due
                .get_or_insert(now.saturating_add(self.faults.delay()));
            if due > now {
                return Shown::Later(due);
            }
        }
        self.flush()
    }

    /// Shows the driver what was completed, also if it was to be delayed.
    #[inline]
    pub(super) fn flush(&mut self) -> Shown {
        (self.used, self.due) = (false, None);
        if self.queue.notify() {
            Shown::Interrupt
        } else {
            Shown::Nothing
        }
    }

    /// Drops what is known of memory that was withdrawn.
    pub(super) fn refresh(&mut self) {
        self.queue.refresh();
    }

    /// How the driver has broken the queue, if it has; its ring may not be mapped, too.
    #[inline]
    pub(super) fn broken(&self) -> Option<Broken> {
        self.queue.broken()
    }

    /// Where the queue stands, if everything was shown.
    pub(super) fn state(&self) -> Option<RingState> {
        self.queue.state()
    }

    /// How many accesses have failed since the last call because the memory was not mapped, or not
    /// so.
    #[inline]
    pub(super) fn take_dma_faults(&mut self) -> u64 {
        mem::take(&mut self.dma_faults)
    }
}
