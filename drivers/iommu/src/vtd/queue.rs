//! The queue of invalidations (VT-d 4.1, 6.5.2).

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use vdpa::Platform;
use vdpa::iotlb::IovaRange;
use virtq::{DmaError, SharedMemory};

use crate::hardware_table::{Coherence, HardwareTable, TableSource};
use crate::page_table::PAGE;

use super::capability::{Capabilities, Mode};
use super::registers::{FaultStatus, Global, Register, Registers, Timeout, wait};

const BYTES: usize = PAGE as usize;
/// In the queue's address register: descriptors of 32 bytes, which scalable mode wants.
const WIDE: u64 = 1 << 11;
/// As many parts of a change are told one by one; more are told as the whole domain.
const MOST_RANGES: usize = 16;

/// What a unit forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalidation {
    /// All context entries (6.5.2.1).
    AllContexts,
    /// The context entry of a device in a domain.
    Context { domain: u16, device: u16 },
    /// All entries of PASID tables (6.5.2.2).
    AllPasids,
    /// Those of a domain.
    Pasids { domain: u16 },
    /// All translations (6.5.2.3).
    AllTranslations,
    /// Those of a domain.
    Translations { domain: u16 },
    /// Those of a domain at 2^`log_pages` pages from an address on, which is aligned to as many.
    Pages {
        domain: u16,
        addr: u64,
        log_pages: u32,
    },
    /// All entries of the interrupt remapping table (6.5.2.8).
    AllInterrupts,
    /// One of them.
    Interrupt { index: u16 },
}

impl Invalidation {
    /// What makes the unit forget these parts of a domain.
    pub(super) fn of_ranges(
        domain: u16,
        ranges: &[IovaRange],
        capabilities: Capabilities,
    ) -> Vec<Self> {
        let pages = |range: &IovaRange| {
            // The smallest aligned block of pages that holds the range.
            let bits = 64 - (range.first() ^ range.last()).leading_zeros();
            let log_pages = bits.saturating_sub(PAGE.trailing_zeros());
            let most = capabilities.most_pages()?;
            let addr = range.first() & (u64::MAX << bits.clamp(PAGE.trailing_zeros(), 63));
            (log_pages <= most).then_some(Self::Pages {
                domain,
                addr,
                log_pages,
            })
        };
        if ranges.len() <= MOST_RANGES
            && let Some(list) = ranges.iter().map(pages).collect()
        {
            list
        } else {
            [Self::Translations { domain }].into()
        }
    }

    fn encode(self, drain: u64) -> [u64; 2] {
        match self {
            Self::AllContexts => [0x1 | 1 << 4, 0],
            Self::Context { domain, device } => {
                let ids = u64::from(domain) << 16 | u64::from(device) << 32;
                [0x1 | 3 << 4 | ids, 0]
            }
            Self::AllPasids => [0x7 | 3 << 4, 0],
            Self::Pasids { domain } => [0x7 | u64::from(domain) << 16, 0],
            Self::AllTranslations => [0x2 | 1 << 4 | drain, 0],
            Self::Translations { domain } => [0x2 | 2 << 4 | drain | u64::from(domain) << 16, 0],
            Self::Pages {
                domain,
                addr,
                log_pages,
            } => [
                0x2 | 3 << 4 | drain | u64::from(domain) << 16,
                addr | u64::from(log_pages),
            ],
            Self::AllInterrupts => [0x4, 0],
            Self::Interrupt { index } => [0x4 | 1 << 4 | u64::from(index) << 32, 0],
        }
    }
}

/// The queue. All that was put in has been done, or the unit is not used any more.
#[derive(Debug)]
pub(super) struct Queue {
    table: HardwareTable,
    /// Where the unit says how far it is.
    status: SharedMemory,
    ticket: u32,
    tail: usize,
    words: usize,
    drain: u64,
}

impl Queue {
    pub(super) fn new(
        platform: &dyn Platform,
        capabilities: Capabilities,
    ) -> Result<Self, DmaError> {
        // The unit snoops when it reads the queue, always (6.5.2).
        let source = TableSource::new(platform, Coherence::Snooped);
        let words = match capabilities.mode() {
            Mode::Legacy => 2,
            Mode::Scalable => 4,
        };
        let writes = u64::from(capabilities.drains_writes()) << 6;
        let reads = u64::from(capabilities.drains_reads()) << 7;
        Ok(Self {
            table: source.allocate(BYTES)?,
            status: SharedMemory::new(&platform.dma(), size_of::<u32>())?,
            ticket: 0,
            tail: 0,
            words,
            drain: writes | reads,
        })
    }

    /// Lets the unit take its orders from the queue, which is empty.
    pub(super) fn enable(
        &self,
        registers: &Registers,
        platform: &dyn Platform,
    ) -> Result<(), Timeout> {
        let wide = if self.words == 4 { WIDE } else { 0 };
        registers.write64(Register::QueueTail, 0);
        registers.write64(Register::QueueAddress, self.table.addr().0 | wide);
        registers.turn_on(Global::QUEUED_INVALIDATION, platform)
    }

    /// Lets the unit forget something, and waits until it has.
    pub(super) fn run(
        &mut self,
        list: &[Invalidation],
        registers: &Registers,
        platform: &dyn Platform,
    ) -> Result<(), Timeout> {
        // One is left for the wait descriptor, and one is never used.
        for part in list.chunks(self.table.len() / self.words - 2) {
            for invalidation in part {
                let descriptor = invalidation.encode(self.drain);
                self.push(descriptor);
            }
            self.ticket = self.ticket.wrapping_add(1);
            // Write the status, after all before has been done (6.5.2.9).
            let wait = 0x5 | 1 << 5 | u64::from(self.ticket) << 32;
            self.push([wait, self.status.addr().0]);
            // Before the unit reads: tables and descriptors.
            fence(Ordering::SeqCst);
            registers.write64(Register::QueueTail, (self.tail * 8) as u64);
            self.wait(registers, platform)?;
        }
        Ok(())
    }

    fn wait(&self, registers: &Registers, platform: &dyn Platform) -> Result<(), Timeout> {
        let errors = FaultStatus::QUEUE_ERROR
            | FaultStatus::COMPLETION_ERROR
            | FaultStatus::COMPLETION_TIMEOUT;
        let mut failed = FaultStatus::empty();
        wait(platform, || {
            if self.reached() == self.ticket {
                return true;
            }
            failed = registers.fault_status() & errors;
            !failed.is_empty()
        })?;
        if failed.is_empty() || self.reached() == self.ticket {
            Ok(())
        } else {
            log::error!("the IOMMU's invalidation queue has stopped: {failed:?}");
            Err(Timeout)
        }
    }

    /// What the unit has written last.
    fn reached(&self) -> u32 {
        let mut bytes = [0; size_of::<u32>()];
        // It lies inside, and no allocator has the memory.
        let _ = self.status.read(0, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn push(&mut self, descriptor: [u64; 2]) {
        let [low, high] = descriptor;
        let first = self.tail;
        let words = [low, high, 0, 0];
        self.table
            .fill(first, self.words, |at| words.get(at).copied().unwrap_or(0));
        self.tail = (first + self.words) % self.table.len();
    }
}
