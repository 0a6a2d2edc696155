//! The heap, on all free memory. It is also where page tables and memory for devices come from.
//!
//! What runs out of memory in the middle of something ends the machine, so a part of it is kept for
//! those that cannot do without. What can be refused is refused before: devices, and simulated ones
//! earlier than those that the machine has.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};

use heapless::Vec;
use linked_list_allocator::Heap;

use crate::machine::sync::IrqMutex;
use crate::pure::memory::regions::MAX_FREE;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap {
    regions: IrqMutex::new(Vec::new()),
};

/// The lower and the upper part of memory have so many regions at most.
const MAX_REGIONS: usize = 2 * MAX_FREE;

/// One heap for each region of free memory.
struct KernelHeap {
    regions: IrqMutex<Vec<Region, MAX_REGIONS>>,
}

struct Region {
    range: Range<u64>,
    heap: Heap,
}

/// How much memory the heap has, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFigures {
    /// All of it.
    pub total: u64,
    /// What is in use, with the losses to alignment.
    pub used: u64,
}

/// The part that is kept from devices, as its denominator. Three times as much is kept from
/// simulated devices.
const KEPT_PART: u64 = 16;
/// How many times as much as it wants a device must find, so that much is refused before little is.
const MARGIN: u64 = 4;

impl MemoryFigures {
    /// What is free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// Whether a device can have so many bytes.
    #[must_use]
    pub fn suffice_for_device(&self, bytes: u64) -> bool {
        bytes.saturating_mul(MARGIN) <= self.free().saturating_sub(self.total / KEPT_PART)
    }

    /// What simulated devices can still have.
    #[must_use]
    pub fn left_for_simulators(&self) -> u64 {
        self.free().saturating_sub(3 * (self.total / KEPT_PART))
    }
}

/// Adds memory to the heap. Of the regions the last one is used up first.
///
/// # Safety
/// The memory is mapped at its physical address, writable, for ever, and nobody else uses it.
pub(crate) unsafe fn add(range: Range<u64>) {
    let start = with_exposed_provenance_mut(range.start as usize);
    let size = (range.end - range.start) as usize;
    // SAFETY: passed on to the caller.
    let heap = unsafe { Heap::new(start, size) };
    HEAP.regions.with(|regions| {
        // There are no more regions than places.
        let _: Result<(), Region> = regions.push(Region { range, heap });
    });
}

/// How much memory there is.
pub(crate) fn figures() -> MemoryFigures {
    HEAP.regions.with(|regions| {
        regions
            .iter()
            .fold(MemoryFigures::default(), |sum, region| MemoryFigures {
                total: sum.total + region.heap.size() as u64,
                used: sum.used + region.heap.used() as u64,
            })
    })
}

// SAFETY: `Heap` hands out exclusive blocks of its own region, and each block goes back to the heap
// in whose region it lies.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.regions.with(|regions| {
            regions
                .iter_mut()
                .rev()
                .find_map(|region| region.heap.allocate_first_fit(layout).ok())
                .map_or(null_mut(), NonNull::as_ptr)
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block.addr() as u64;
        self.regions.with(|regions| {
            let region = regions
                .iter_mut()
                .find(|region| region.range.contains(&address));
            if let (Some(region), Some(block)) = (region, NonNull::new(block)) {
                // SAFETY: the caller vouches that the block came from `alloc` with this layout, and
                // it lies in this region.
                unsafe { region.heap.deallocate(block, layout) };
            }
        });
    }
}
