//! The log of the pages that a device has written, for a move of its memory. Not of the rings:
//! those are logged by their owner.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use vdpa::dirty::pages;
use vdpa::dma::AddressSpace;
use vdpa::ops::DirtyLog;
use virtq::device::{Access, Chain, Fault, Lookup, Mapped};
use virtq::{DmaAddr, Segment};

/// A bitmap that the device reaches as it reaches everything: through its translation.
pub(super) struct PageLog {
    space: Arc<AddressSpace>,
    kept: AtomicBool,
    log: Mutex<Option<DirtyLog>>,
}

impl PageLog {
    /// No log, until there is one in this address space.
    pub(super) fn new(space: &Arc<AddressSpace>) -> Self {
        Self {
            space: Arc::clone(space),
            kept: AtomicBool::new(false),
            log: Mutex::new(None),
        }
    }

    /// From now on the log is this one, or there is none. Called between two turns of the worker.
    pub(super) fn set(&self, log: Option<DirtyLog>) {
        *self.log.lock() = log;
        self.kept.store(log.is_some(), Ordering::Release);
    }

    /// Whether there is a log.
    #[inline]
    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// The `len` writable bytes of a chain from `offset` on were written.
    ///
    /// # Errors
    /// [`Fault`], if a part of the bitmap is not mapped; the rest has been written.
    #[cold]
    pub(super) fn written(&self, chain: &Chain, offset: u64, len: u64) -> Result<(), Fault> {
        let log = self.log.lock();
        let Some(log) = &*log else {
            return Ok(());
        };
        let (mut skip, mut left) = (offset, len);
        let mut result = Ok(());
        for &Segment { addr, len, .. } in chain.writable() {
            let len = u64::from(len);
            let part = len.saturating_sub(skip).min(left);
            // Does not wrap: the chain's segments were checked.
            let start = DmaAddr(addr.0.wrapping_add(skip));
            for page in pages(start, part) {
                result = result.and(self.mark(log, page));
            }
            skip = skip.saturating_sub(len);
            left -= part;
        }
        result
    }

    /// Sets the bit of a page, if it has one.
    fn mark(&self, log: &DirtyLog, page: u64) -> Result<(), Fault> {
        let place = page / 8;
        if place >= log.len {
            return Ok(());
        }
        let addr = DmaAddr(log.base.0.wrapping_add(place));
        let Mapped {
            first,
            memory,
            offset,
            ..
        } = self.space.lookup(addr, Access::Write)?;
        let offset = offset.wrapping_add(addr.0.wrapping_sub(first.0));
        // SAFETY: the owner has lent the bitmap to the device for as long as there is a log.
        let set = unsafe { memory.set_lent_bits(offset, 1 << (page % 8)) };
        set.map_err(|_| Fault::NoMapping)
    }
}
