//! An allocator of parts of one piece of shared memory, such as the memory that a client has mapped
//! for its device in one go. Its books are kept apart from the memory, out of the device's reach.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::mem;
use core::ops::Range;

use spin::Mutex;

use crate::dma::PAGE;
use crate::{AddressSpaceId, DmaAddr, DmaAllocator, DmaBlock, DmaError, SharedMemory};

/// Why memory cannot be an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// The memory lies differently in a page for the device than it does for the processor.
    #[error("the device's address is aligned differently from the memory")]
    Misaligned,
    /// The device's addresses would not end before 2^64.
    #[error("the memory does not fit behind the device's address")]
    BadAddress,
    /// An allocator hands out parts of the memory already, or the memory is open to a device.
    #[error("the memory is another allocator's or open to a device")]
    Taken,
}

/// A [`DmaAllocator`] that hands out parts of one piece of memory, whose address for the device is
/// known.
pub struct Arena {
    memory: SharedMemory,
    base: DmaAddr,
    space: AddressSpaceId,
    free: Mutex<Free>,
}

/// What is free, as offsets in ascending order, never adjacent.
struct Free(Vec<Range<usize>>);

impl Arena {
    /// An arena of the whole of `memory`, which the device finds at `base`.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(memory: SharedMemory, base: DmaAddr) -> Result<Arc<Self>, ArenaError> {
        let ptr = memory.ptr().addr().get() as u64;
        if !ptr.wrapping_sub(base.0).is_multiple_of(PAGE as u64) {
            return Err(ArenaError::Misaligned);
        }
        if base.0.checked_add(memory.len()).is_none() {
            return Err(ArenaError::BadAddress);
        }
        if !memory.claim() {
            return Err(ArenaError::Taken);
        }
        let free = Mutex::new(Free::new(memory.size()));
        let space = AddressSpaceId::unique();
        Ok(Arc::new(Self {
            memory,
            base,
            space,
            free,
        }))
    }

    /// The first offset from `start` on where a block may lie that must be a multiple of `align`
    /// for the processor and for the device.
    fn place(&self, start: usize, align: usize) -> Option<usize> {
        let ptr = self.memory.ptr().addr().get();
        let offset = ptr.checked_add(start)?.checked_next_multiple_of(align)? - ptr;
        let addr = self.base.0 + offset as u64;
        addr.is_multiple_of(align as u64).then_some(offset)
    }
}

// SAFETY: blocks lie inside the memory, which the arena keeps and has claimed; what one takes is
// free for no other until it is given back.
unsafe impl DmaAllocator for Arena {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        let place = |start| self.place(start, layout.align());
        let offset = self.free.lock().take(layout.size(), place);
        let offset = offset.ok_or(DmaError::OutOfMemory)?;
        // SAFETY: the block lies inside the memory.
        let ptr = unsafe { self.memory.ptr().add(offset) };
        // SAFETY: as above, and nobody else has it.
        unsafe { ptr.write_bytes(0, layout.size()) };
        let addr = self.base.offset(offset);
        Ok(DmaBlock { ptr, addr, layout })
    }

    fn space(&self) -> AddressSpaceId {
        self.space
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        let offset = block.ptr.addr().get() - self.memory.ptr().addr().get();
        let range = offset..offset + block.layout.size();
        self.free.lock().give(range);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.free.get_mut().is_all(self.memory.size()) {
            self.memory.release();
        } else {
            // Who has a block may still use it.
            mem::forget(self.memory.clone());
        }
    }
}

impl Free {
    fn new(size: usize) -> Self {
        let mut free = Self(Vec::new());
        free.give(0..size);
        free
    }

    /// Takes `size` bytes from the first range that has them behind the offset that `place` finds
    /// in it.
    fn take(&mut self, size: usize, place: impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let fit = |range: &Range<usize>| {
            let start = place(range.start)?;
            let end = start.checked_add(size)?;
            (end <= range.end).then_some(start..end)
        };
        let mut ranges = self.0.iter().enumerate();
        let (at, taken) = ranges.find_map(|(at, range)| Some((at, fit(range)?)))?;
        let free = self.0[at].clone();
        let left = [free.start..taken.start, taken.end..free.end];
        let left = left.into_iter().filter(|range| !range.is_empty());
        self.0.splice(at..=at, left);
        Some(taken.start)
    }

    /// Takes a range back that was taken before.
    fn give(&mut self, range: Range<usize>) {
        let at = self.0.partition_point(|free| free.start < range.start);
        let joins_next = self.0.get(at).is_some_and(|next| next.start == range.end);
        let joins_last = at > 0 && self.0[at - 1].end == range.start;
        match (joins_last, joins_next) {
            (true, true) => self.0[at - 1].end = self.0.remove(at).end,
            (true, false) => self.0[at - 1].end = range.end,
            (false, true) => self.0[at].start = range.start,
            (false, false) => self.0.insert(at, range),
        }
    }

    /// Whether nothing of `size` bytes is taken.
    fn is_all(&self, size: usize) -> bool {
        self.0.first() == Some(&(0..size))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free: usize = self.free.lock().0.iter().map(ExactSizeIterator::len).sum();
        f.debug_struct("Arena")
            .field("memory", &self.memory)
            .field("base", &self.base)
            .field("free", &free)
            .finish()
    }
}
