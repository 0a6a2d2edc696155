//! Memory that several parties reach at once: a client and the software device that serves it, say.
//!
//! It is lent as a handle. Whoever has one can keep the memory alive and copy out of it and into it, and
//! nothing else, so that safe code can neither reach beyond it nor keep a pointer to it when it is gone.

use alloc::sync::Arc;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::copy::{copy_in, copy_out};
use crate::dma::{Region, layout};
use crate::{DmaAddr, DmaAllocator, DmaError};

/// The range does not lie inside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range does not lie inside the memory")]
pub struct OutOfBounds;

/// A share of one allocation, which is given back with the last of its clones.
///
/// All clones reach the same bytes, at any time. What one party writes while another one reads arrives in any
/// mixture of old and new bytes.
///
/// Memory of which a [`DmaAllocator`] of this crate hands out parts ([`Arena`](crate::Arena),
/// [`PlacedDma`](crate::PlacedDma)) has a handle for the device's side: as hardware does, a software
/// device touches the buffers there only while a driver has lent them through a ring.
#[derive(Clone)]
pub struct SharedMemory(Arc<Inner>);

struct Inner {
    region: Region,
    /// An allocator hands out parts of the memory, and no other may.
    claimed: AtomicBool,
}

impl SharedMemory {
    /// Takes `len` zeroed bytes, aligned to 16 bytes or to the page size from one page up.
    ///
    /// # Errors
    /// [`DmaError`], if the size is zero or too large, or memory is short.
    pub fn new(dma: &Arc<dyn DmaAllocator>, len: usize) -> Result<Self, DmaError> {
        Self::with_layout(dma, layout(len)?)
    }

    /// Takes zeroed bytes of this layout, whose size is not zero.
    pub(crate) fn with_layout(
        dma: &Arc<dyn DmaAllocator>,
        layout: Layout,
    ) -> Result<Self, DmaError> {
        let region = Region::new(dma, layout)?;
        let claimed = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { region, claimed })))
    }

    /// The length in bytes, never zero.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "an allocation holds at least a byte"
    )]
    pub fn len(&self) -> u64 {
        self.size() as u64
    }

    /// What its address is a multiple of, and what the address of another device that it is mapped
    /// for should be a multiple of: a power of two, in bytes.
    #[must_use]
    pub fn align(&self) -> u64 {
        self.0.region.layout().align() as u64
    }

    /// Where the device finds the first byte for which the memory was allocated: an address of the platform, or
    /// of one device alone.
    #[must_use]
    pub fn addr(&self) -> DmaAddr {
        self.0.region.addr()
    }

    /// Where any device of the platform finds the first byte, if it lets it. `None` for memory whose address
    /// somebody has given it for one device, and which may mean other memory to others.
    #[must_use]
    pub fn platform_addr(&self) -> Option<DmaAddr> {
        self.0.region.platform_addr()
    }

    /// Copies bytes out of the memory, from `offset` on.
    ///
    /// # Errors
    /// [`OutOfBounds`]: nothing was copied.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.locate(offset, bytes.len())?;
        // SAFETY: the range lies inside the allocation, of which no reference is ever made.
        unsafe { copy_out(from, bytes) };
        Ok(())
    }

    /// Copies bytes into the memory, from `offset` on.
    ///
    /// # Errors
    /// [`OutOfBounds`]: nothing was copied.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.locate(offset, bytes.len())?;
        // SAFETY: as for `read`.
        unsafe { copy_in(to, bytes) };
        Ok(())
    }

    /// Sets bits of the byte at `offset`, in one step: none is lost that another party sets or takes meanwhile.
    /// Whoever takes them sees everything that was written before.
    ///
    /// # Errors
    /// [`OutOfBounds`]: nothing was set.
    pub fn set_bits(&self, offset: u64, bits: u8) -> Result<(), OutOfBounds> {
        let byte = self.locate(offset, 1)?;
        // SAFETY: the byte lies inside the allocation, of which no reference to plain memory is ever made.
        let byte = unsafe { AtomicU8::from_ptr(byte.as_ptr()) };
        byte.fetch_or(bits, Ordering::AcqRel);
        Ok(())
    }

    /// Takes the bits of the byte at `offset` and leaves none, in one step.
    ///
    /// # Errors
    /// [`OutOfBounds`]: nothing was taken.
    pub fn take_bits(&self, offset: u64) -> Result<u8, OutOfBounds> {
        let byte = self.locate(offset, 1)?;
        // SAFETY: as for `set_bits`.
        let byte = unsafe { AtomicU8::from_ptr(byte.as_ptr()) };
        Ok(byte.swap(0, Ordering::AcqRel))
    }

    /// Whether both reach the same allocation.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The length, for offsets of the processor.
    pub(crate) fn size(&self) -> usize {
        self.0.region.layout().size()
    }

    /// Where the processor finds the first byte, as long as a share of the memory lives.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.0.region.ptr()
    }

    /// A number that no other memory has as long as a share of this one lives. (Memory may lie inside other
    /// memory, where both have the same pointer.)
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Takes the right to hand out parts of the memory. False if somebody has it.
    pub(crate) fn claim(&self) -> bool {
        !self.0.claimed.swap(true, Ordering::Acquire)
    }

    /// Gives that right back. No part is out any more.
    pub(crate) fn release(&self) {
        self.0.claimed.store(false, Ordering::Release);
    }

    fn locate(&self, offset: u64, len: usize) -> Result<NonNull<u8>, OutOfBounds> {
        let end = offset.checked_add(len as u64).ok_or(OutOfBounds)?;
        if end > self.len() {
            return Err(OutOfBounds);
        }
        let offset = usize::try_from(offset).expect("at most the length of an allocation");
        // SAFETY: the offset lies inside the allocation, or at its end.
        Ok(unsafe { self.ptr().add(offset) })
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({:#x}, {} bytes)", self.addr(), self.len())
    }
}
