//! Memory from the heap, as a device side reaches it.

use alloc::sync::Arc;
use core::fmt;

use super::HeapDma;
use crate::DmaAddr;
use crate::device::{Access, Fault, Memory, Piece};

/// The allocations of a [`HeapDma`] as the memory of a [`DeviceQueue`](crate::device::DeviceQueue),
/// by the addresses that a driver without an IOMMU uses.
///
/// What the driver frees cannot be reached from then on, and goes back to the heap when the last of
/// these values goes.
pub struct HeapMemory(Arc<HeapDma>);

impl HeapMemory {
    /// All that is allocated now or later.
    #[must_use]
    pub fn new(dma: &Arc<HeapDma>) -> Self {
        dma.begin_to_watch();
        Self(Arc::clone(dma))
    }
}

// SAFETY: a piece lies in one live allocation, and while this value lives no allocation goes back
// to the heap, because it was counted when it was made.
unsafe impl Memory for HeapMemory {
    fn translate(&self, addr: DmaAddr, len: u32, _access: Access) -> Result<Piece, Fault> {
        let (ptr, left) = self.0.piece(addr).map_err(|_| Fault::NoMapping)?;
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        Ok(Piece {
            addr,
            ptr,
            len: len.min(left),
        })
    }

    fn generation(&self) -> u64 {
        self.0.generation()
    }
}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        self.0.end_to_watch();
    }
}

impl fmt::Debug for HeapMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeapMemory")
    }
}
