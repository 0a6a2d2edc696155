//! Memory for devices: blocks of the heap. All memory is mapped at its physical address, which is
//! also where a device finds it.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;
#[cfg(feature = "iommu")]
use core::sync::atomic::{AtomicBool, Ordering};

use virtq::{DmaAddr, DmaAllocator, DmaBlock, DmaError};

use super::heap;
#[cfg(feature = "iommu")]
use crate::pure::memory::regions::PAGE_SIZE;

/// The heap, for devices, as far as it can spare the memory.
#[derive(Debug, Default)]
pub(crate) struct HeapDma {
    /// An IOMMU can be told of whole pages only.
    #[cfg(feature = "iommu")]
    whole_pages: AtomicBool,
}

#[cfg(feature = "iommu")]
impl HeapDma {
    /// From now on a block shares no page with anything else.
    pub(crate) fn give_whole_pages(&self) {
        self.whole_pages.store(true, Ordering::Relaxed);
    }

    fn fit(&self, layout: Layout) -> Result<Layout, DmaError> {
        if !self.whole_pages.load(Ordering::Relaxed) {
            return Ok(layout);
        }
        let layout = layout.align_to(PAGE_SIZE as usize);
        Ok(layout.map_err(|_| DmaError::BadSize)?.pad_to_align())
    }
}

// SAFETY: a block of the heap is exclusive until it is given back, it was zeroed, and its address
// is that for the processor and for devices, which IOMMUs leave as it is for those of the kernel.
unsafe impl DmaAllocator for HeapDma {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        #[cfg(feature = "iommu")]
        let layout = self.fit(layout)?;
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
