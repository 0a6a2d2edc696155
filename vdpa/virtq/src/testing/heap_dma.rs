//! Memory from the heap that a "device" reaches by address.
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use std::alloc::{alloc_zeroed, dealloc};
use std::sync::{Mutex, MutexGuard};

use crate::{DmaAddr, DmaAllocator, DmaBlock, DmaError};

/// Heap memory with device addresses of its own: never the pointer's value, never reused, and with
/// holes between allocations, so that mixing the two up or running over an end is noticed.
#[derive(Debug)]
pub struct HeapDma {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    left: usize,
    outstanding: usize,
    blocks: BTreeMap<u64, Block>,
    /// How many device sides may still use what has been given back.
    watchers: usize,
    /// What has been given back in the meantime.
    retired: Vec<Block>,
    generation: u64,
}

#[derive(Debug)]
struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the pointers are only used under the lock that holds them.
unsafe impl Send for Block {}

/// The "device" reached for memory that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no DMA memory at this address")]
pub struct Fault;

impl HeapDma {
    /// Memory without a limit.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::limited(usize::MAX)
    }

    /// Memory of which at most `bytes` can be out at once.
    #[must_use]
    pub fn limited(bytes: usize) -> Arc<Self> {
        let state = State {
            next: 0x1_0000_0000,
            left: bytes,
            outstanding: 0,
            blocks: BTreeMap::new(),
            watchers: 0,
            retired: Vec::new(),
            generation: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// How many bytes are out.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.lock().outstanding
    }

    /// Reads as the device would.
    ///
    /// # Errors
    /// [`Fault`], unless the whole range lies in one live allocation.
    pub fn read(&self, addr: DmaAddr, bytes: &mut [u8]) -> Result<(), Fault> {
        let state = self.lock();
        let from = state.locate(addr, bytes.len())?;
        // SAFETY: the range lies in a live allocation, and the ranges do not overlap: `bytes` is
        // not DMA memory.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Writes as the device would.
    ///
    /// # Errors
    /// [`Fault`], unless the whole range lies in one live allocation.
    pub fn write(&self, addr: DmaAddr, bytes: &[u8]) -> Result<(), Fault> {
        let state = self.lock();
        let to = state.locate(addr, bytes.len())?;
        // SAFETY: as for `read`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Nothing that is given back goes back to the heap from now on.
    pub(super) fn begin_to_watch(&self) {
        self.lock().watchers += 1;
    }

    pub(super) fn end_to_watch(&self) {
        let mut state = self.lock();
        state.watchers -= 1;
        if state.watchers == 0 {
            state.retired.drain(..).for_each(Block::free);
        }
    }

    /// Where the byte at an address is, and how many bytes there are from it to the end of its
    /// allocation.
    pub(super) fn piece(&self, addr: DmaAddr) -> Result<(NonNull<u8>, usize), Fault> {
        let state = self.lock();
        let ptr = state.locate(addr, 1)?;
        let (start, block) = state.blocks.range(..=addr.0).next_back().ok_or(Fault)?;
        let offset = usize::try_from(addr.0 - start).map_err(|_| Fault)?;
        Ok((ptr, block.layout.size() - offset))
    }

    /// How often memory was given back while somebody watched.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds the lock")
    }
}

impl State {
    fn locate(&self, addr: DmaAddr, len: usize) -> Result<NonNull<u8>, Fault> {
        let (&start, block) = self.blocks.range(..=addr.0).next_back().ok_or(Fault)?;
        let offset = usize::try_from(addr.0 - start).map_err(|_| Fault)?;
        let end = offset.checked_add(len).ok_or(Fault)?;
        if end > block.layout.size() {
            return Err(Fault);
        }
        // SAFETY: the offset lies inside the allocation.
        Ok(unsafe { block.ptr.add(offset) })
    }
}

// SAFETY: every block is a zeroed heap allocation of its own that lives until it is given back, and
// its address is found in the table of live blocks.
unsafe impl DmaAllocator for HeapDma {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let mut state = self.lock();
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        state.left = state
            .left
            .checked_sub(layout.size())
            .ok_or(DmaError::OutOfMemory)?;
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::OutOfMemory)?;
        let align = layout.align() as u64;
        let start = state.next.next_multiple_of(align);
        state.next = start + layout.size() as u64 + 0x1000;
        state.outstanding += layout.size();
        state.blocks.insert(start, Block { ptr, layout });
        Ok(DmaBlock {
            ptr,
            addr: DmaAddr(start),
            layout,
        })
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        let mut state = self.lock();
        let known = state
            .blocks
            .remove(&block.addr.0)
            .expect("a block is given back once");
        assert_eq!((known.ptr, known.layout), (block.ptr, block.layout));
        state.outstanding -= known.layout.size();
        state.left += known.layout.size();
        if state.watchers == 0 {
            known.free();
        } else {
            state.generation += 1;
            state.retired.push(known);
        }
    }
}

impl Block {
    /// Back to the heap with it. It is in no table any more, and nobody uses it.
    fn free(self) {
        // SAFETY: the block was allocated with this layout, and it is given back once because it is
        // moved here.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) };
    }
}
