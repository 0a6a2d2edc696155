//! Memory that gets an address of its own for a device: an I/O virtual address, where the device or
//! an IOMMU translates. Which one, and how the device learns of it, is up to a [`Placement`].

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::mem::ManuallyDrop;

use spin::Mutex;

use crate::{
    AddressSpaceId, DeviceMemory, DmaAddr, DmaAllocator, DmaBlock, DmaError, SharedMemory,
};

/// Gives memory an address for a device, and takes it away again.
///
/// # Safety
/// The memory is mapped only for devices that keep to what [`DeviceMemory::lent`] asks.
pub unsafe trait Placement: Send + Sync {
    /// Lets the device find the whole of `memory` at the address that is returned, a multiple of
    /// [`SharedMemory::align`].
    ///
    /// # Errors
    /// [`DmaError::OutOfMemory`], if the device has no address for it, or no room for the mapping.
    fn place(&self, memory: &DeviceMemory) -> Result<DmaAddr, DmaError>;

    /// Takes back what [`place`](Placement::place) has returned for `len` bytes.
    fn withdraw(&self, addr: DmaAddr, len: u64);
}

/// A [`DmaAllocator`] that takes its memory from another one, and its addresses from a placement.
pub struct PlacedDma<P> {
    source: Arc<dyn DmaAllocator>,
    placement: P,
    space: AddressSpaceId,
    /// What is out, in the order in which it lies. It outlives the allocator: who has a block may
    /// still use it.
    out: Mutex<Vec<ManuallyDrop<SharedMemory>>>,
}

impl<P: Placement> PlacedDma<P> {
    /// Places what `source` allocates.
    #[must_use]
    pub fn new(source: Arc<dyn DmaAllocator>, placement: P) -> Arc<Self> {
        Arc::new(Self {
            source,
            placement,
            space: AddressSpaceId::unique(),
            out: Mutex::new(Vec::new()),
        })
    }
}

// SAFETY: a block is the whole of an allocation of the source, kept until it is given back, and
// claimed, so that no allocator hands out parts of it. The placement vouches for the address.
unsafe impl<P: Placement> DmaAllocator for PlacedDma<P> {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let memory = SharedMemory::with_layout(&self.source, layout)?;
        let claimed = memory.claim();
        debug_assert!(claimed, "nobody else knows of the memory yet");
        // SAFETY: the placement has promised it.
        let lent = unsafe { DeviceMemory::lent(&memory) };
        let addr = self.placement.place(&lent)?;
        if !fits(addr, layout) {
            self.placement.withdraw(addr, memory.len());
            return Err(DmaError::BadAddress);
        }
        let ptr = memory.ptr();
        let memory = ManuallyDrop::new(memory);
        let mut out = self.out.lock();
        let place = out.partition_point(|other| other.ptr() < ptr);
        out.insert(place, memory);
        Ok(DmaBlock { ptr, addr, layout })
    }

    fn space(&self) -> AddressSpaceId {
        self.space
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        let mut out = self.out.lock();
        let place = out.binary_search_by_key(&block.ptr, |memory| memory.ptr());
        let memory = out.remove(place.expect("a block is given back once, to where it is from"));
        drop(out);
        self.placement.withdraw(block.addr, memory.len());
        drop(ManuallyDrop::into_inner(memory));
    }
}

/// Whether a block may lie there.
fn fits(addr: DmaAddr, layout: Layout) -> bool {
    let last = layout.size() as u64 - 1;
    addr.0.is_multiple_of(layout.align() as u64) && addr.0.checked_add(last).is_some()
}

impl<P> fmt::Debug for PlacedDma<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = self.out.lock().len();
        f.debug_struct("PlacedDma")
            .field("blocks", &blocks)
            .finish_non_exhaustive()
    }
}
