//! Memory that several parties reach at once: a client and the software device that serves it, say.
//!
//! A handle keeps the memory alive and copies out of it and into it, and nothing else: safe code
//! can neither reach beyond the memory nor keep a pointer to it. Copies are atomic byte by byte, so
//! parties that write at the same time mix their bytes and do no harm beyond that.
//!
//! Memory is either open to all of its handles, or claimed by one allocator, whose buffers are
//! exclusive slices. Which of the two is decided here, in one word.

use alloc::sync::Arc;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::copy::{copy_in, copy_out};
use crate::dma::{Region, layout};
use crate::{DmaAddr, DmaAllocator, DmaError};

/// Why memory cannot be accessed. Nothing was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The range does not lie inside the memory.
    #[error("the range does not lie inside the memory")]
    OutOfBounds,
    /// An allocator hands out parts of the memory, and the buffers there are exclusive.
    #[error("an allocator hands out parts of the memory")]
    Claimed,
}

/// [`Inner::users`] of memory that an allocator has claimed.
const CLAIMED: usize = usize::MAX;

/// A share of one allocation, which is given back with the last of its clones.
///
/// All clones reach the same bytes, at any time. What one party writes while another one reads
/// arrives in any mixture of old and new bytes.
///
/// While a [`DmaAllocator`] of this crate hands out parts of the memory ([`Arena`](crate::Arena),
/// [`PlacedDma`](crate::PlacedDma)), its handles reach nothing. To let a device reach it, see
/// [`DeviceMemory`](crate::DeviceMemory).
#[derive(Clone)]
pub struct SharedMemory(Arc<Inner>);

struct Inner {
    region: Region,
    /// How many accesses and open device memories there are, or [`CLAIMED`].
    users: AtomicUsize,
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
        let users = AtomicUsize::new(0);
        Ok(Self(Arc::new(Inner { region, users })))
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

    /// Where the device finds the first byte for which the memory was allocated: an address of the
    /// platform, or of one device alone.
    #[must_use]
    pub fn addr(&self) -> DmaAddr {
        self.0.region.addr()
    }

    /// Where any device of the platform finds the first byte, if it lets it. `None` for memory
    /// whose address somebody has given it for one device, and which may mean other memory to
    /// others.
    #[must_use]
    pub fn platform_addr(&self) -> Option<DmaAddr> {
        self.0.region.platform_addr()
    }

    /// Copies bytes out of the memory, from `offset` on.
    ///
    /// # Errors
    /// [`AccessError`]: nothing was copied.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), AccessError> {
        let _open = self.open()?;
        // SAFETY: no reference is made of the memory while it is open.
        unsafe { self.read_lent(offset, bytes) }
    }

    /// Copies bytes into the memory, from `offset` on.
    ///
    /// # Errors
    /// [`AccessError`]: nothing was copied.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let _open = self.open()?;
        let to = self.locate(offset, bytes.len())?;
        // SAFETY: as for `read`, and the range lies inside the allocation.
        unsafe { copy_in(to, bytes) };
        Ok(())
    }

    /// Sets bits of the byte at `offset`, in one step: none is lost that another party sets or
    /// takes meanwhile. The taker sees everything that was written before.
    ///
    /// # Errors
    /// [`AccessError`]: nothing was set.
    pub fn set_bits(&self, offset: u64, bits: u8) -> Result<(), AccessError> {
        let _open = self.open()?;
        // SAFETY: as for `read`.
        unsafe { self.set_lent_bits(offset, bits) }
    }

    /// Takes the bits of the byte at `offset` and leaves none, in one step.
    ///
    /// # Errors
    /// [`AccessError`]: nothing was taken.
    pub fn take_bits(&self, offset: u64) -> Result<u8, AccessError> {
        let _open = self.open()?;
        // SAFETY: as for `read`.
        unsafe { self.take_lent_bits(offset) }
    }

    /// [`read`](Self::read) from memory that may be claimed.
    ///
    /// # Errors
    /// [`AccessError::OutOfBounds`].
    ///
    /// # Safety
    /// The range lies in no buffer that a program has: it is lent to a device, or memory in its own
    /// right.
    pub unsafe fn read_lent(&self, offset: u64, bytes: &mut [u8]) -> Result<(), AccessError> {
        let from = self.locate(offset, bytes.len())?;
        // SAFETY: the range lies inside the allocation, and the caller vouches for the rest.
        unsafe { copy_out(from, bytes) };
        Ok(())
    }

    /// [`set_bits`](Self::set_bits) in memory that may be claimed.
    ///
    /// # Errors
    /// [`AccessError::OutOfBounds`].
    ///
    /// # Safety
    /// As for [`read_lent`](Self::read_lent).
    pub unsafe fn set_lent_bits(&self, offset: u64, bits: u8) -> Result<(), AccessError> {
        let byte = self.locate(offset, 1)?;
        // SAFETY: the byte lies inside the allocation, and by the caller's word all access is
        // atomic.
        let byte = unsafe { AtomicU8::from_ptr(byte.as_ptr()) };
        byte.fetch_or(bits, Ordering::AcqRel);
        Ok(())
    }

    /// [`take_bits`](Self::take_bits) in memory that may be claimed.
    ///
    /// # Errors
    /// [`AccessError::OutOfBounds`].
    ///
    /// # Safety
    /// As for [`read_lent`](Self::read_lent).
    pub unsafe fn take_lent_bits(&self, offset: u64) -> Result<u8, AccessError> {
        let byte = self.locate(offset, 1)?;
        // SAFETY: as for `set_lent_bits`.
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

    /// A number that no other memory has as long as a share of this one lives. (Memory may lie
    /// inside other memory, where both have the same pointer.)
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Takes the right to hand out parts of the memory. False if an allocator has it, or if the
    /// memory is open to somebody at this moment.
    pub(crate) fn claim(&self) -> bool {
        let users = &self.0.users;
        let claimed = users.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        claimed.is_ok()
    }

    /// Gives that right back. No part is out any more.
    pub(crate) fn release(&self) {
        self.0.users.store(0, Ordering::Release);
    }

    /// Keeps allocators away from the memory until as many calls of [`leave`](Self::leave).
    pub(crate) fn enter(&self) -> Result<(), AccessError> {
        // A count cannot reach the mark: each user holds a share, whose number is limited below
        // that.
        let one_more = |users| (users != CLAIMED).then(|| users + 1);
        let users = &self.0.users;
        users
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more)
            .map(drop)
            .map_err(|_| AccessError::Claimed)
    }

    /// Ends what one [`enter`](Self::enter) has begun.
    pub(crate) fn leave(&self) {
        self.0.users.fetch_sub(1, Ordering::Release);
    }

    /// Keeps allocators away during one access.
    fn open(&self) -> Result<Open<'_>, AccessError> {
        self.enter()?;
        Ok(Open(self))
    }

    fn locate(&self, offset: u64, len: usize) -> Result<NonNull<u8>, AccessError> {
        let end = offset
            .checked_add(len as u64)
            .ok_or(AccessError::OutOfBounds)?;
        if end > self.len() {
            return Err(AccessError::OutOfBounds);
        }
        let offset = usize::try_from(offset).expect("at most the length of an allocation");
        // SAFETY: the offset lies inside the allocation, or at its end.
        Ok(unsafe { self.ptr().add(offset) })
    }
}

/// One access to memory.
struct Open<'a>(&'a SharedMemory);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({:#x}, {} bytes)", self.addr(), self.len())
    }
}
