//! Memory for devices: blocks of the heap. All memory is mapped at its physical address, which is
//! also where a device finds it.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;

use virtq::{DmaAddr, DmaAllocator, DmaBlock, DmaError};

use super::heap;

/// The heap, for devices, as far as it can spare the memory.
#[derive(Debug)]
pub(crate) struct HeapDma;

// SAFETY: a block of the heap is exclusive until it is given back, it was zeroed, and its address
// is that for the processor and for devices, there being no IOMMU in use.
unsafe impl DmaAllocator for HeapDma {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        if !heap::figures().suffice_for_device(layout.size() as u64) {
            return Err(DmaError::OutOfMemory);
        }
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc_zeroed(layout) };
        let ptr = NonNull::new(block).ok_or(DmaError::OutOfMemory)?;
        Ok(DmaBlock {
            ptr,
            addr: DmaAddr(ptr.as_ptr().expose_provenance() as u64),
            layout,
        })
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        // SAFETY: the caller vouches that the block came from `allocate`, with this layout.
        unsafe { dealloc(block.ptr.as_ptr(), block.layout) };
    }
}
