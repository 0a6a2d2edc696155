//! Memory that a device can reach: where it comes from and who owns it.
//!
//! A [`DmaBuffer`] is the only way this crate hands memory to a device. It is owned and exclusive,
//! so its holder may use it as a byte slice, which is over once it is in a queue.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU32, Ordering};

/// What a larger piece of memory is aligned to.
pub(crate) const PAGE: usize = 4096;

/// An address as a device sees it: a physical address, or an I/O virtual address behind an IOMMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmaAddr(pub u64);

impl DmaAddr {
    /// The address `offset` bytes further on.
    ///
    /// # Panics
    /// If the address wraps. The offset lies inside one allocation, so that would be a bug of the
    /// allocator.
    #[must_use]
    pub fn offset(self, offset: usize) -> Self {
        let offset = u64::try_from(offset).expect("usize is at most 64 bits");
        Self(
            self.0
                .checked_add(offset)
                .expect("an allocation does not wrap"),
        )
    }
}

impl fmt::LowerHex for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// Whose addresses a buffer's are. A queue takes no buffer of another address space, where its
/// device would find other memory or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpaceId(u32);

impl AddressSpaceId {
    /// The platform's: any device finds the memory there, if it is let.
    pub const PLATFORM: Self = Self(0);

    /// Of no device. A queue has no memory there.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// Addresses that mean something to one device alone.
    #[must_use]
    pub fn unique() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let next = |last| (last < u32::MAX - 1).then(|| last + 1);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map_or(Self::NONE, |last| Self(last + 1))
    }
}

/// Why no memory for a device could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// No free memory of this size and alignment is left.
    #[error("out of DMA memory")]
    OutOfMemory,
    /// The size is zero, above 4 GiB, or not representable with its alignment.
    #[error("a DMA buffer of this size cannot exist")]
    BadSize,
    /// The address that was found for the device is not aligned, or the block would not end there.
    #[error("the address for the device is not aligned or wraps")]
    BadAddress,
}

/// One allocation of a [`DmaAllocator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaBlock {
    /// Where the processor finds it.
    pub ptr: NonNull<u8>,
    /// Where the device finds it. The block is contiguous for the device too.
    pub addr: DmaAddr,
    /// Its size and alignment. The alignment holds for `ptr` and for `addr`.
    pub layout: Layout,
}

/// A source of memory that a device can reach.
///
/// # Safety
/// A returned block must be zeroed, valid for reads and writes of its whole layout until it is
/// deallocated, even if the allocator is dropped before, and referred to by nothing else in the
/// program. `addr` must name the same bytes for the device, made of hardware or of software, which
/// touches them only while they are lent to it.
pub unsafe trait DmaAllocator: Send + Sync {
    /// Takes a zeroed block.
    ///
    /// # Errors
    /// [`DmaError::OutOfMemory`] if none is free.
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError>;

    /// Whose addresses those of the blocks are.
    fn space(&self) -> AddressSpaceId {
        AddressSpaceId::PLATFORM
    }

    /// Gives a block back.
    ///
    /// # Safety
    /// `block` came from this allocator, is given back once, and is no longer reached by the
    /// processor or by a device.
    unsafe fn deallocate(&self, block: DmaBlock);
}

/// An allocation that is given back when it is dropped.
pub(crate) struct Region {
    block: DmaBlock,
    allocator: Arc<dyn DmaAllocator>,
}

// SAFETY: the region only keeps the allocation alive; nobody reads or writes memory through it.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(allocator: &Arc<dyn DmaAllocator>, layout: Layout) -> Result<Self, DmaError> {
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        Ok(Self {
            block: allocator.allocate(layout)?,
            allocator: Arc::clone(allocator),
        })
    }

    /// Where the processor finds the first byte, as long as the region lives.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.block.ptr
    }

    /// Where the device finds it.
    pub(crate) fn addr(&self) -> DmaAddr {
        self.block.addr
    }

    /// The same, if the address is the platform's.
    pub(crate) fn platform_addr(&self) -> Option<DmaAddr> {
        (self.allocator.space() == AddressSpaceId::PLATFORM).then_some(self.block.addr)
    }

    /// The size and alignment that were asked for.
    pub(crate) fn layout(&self) -> Layout {
        self.block.layout
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the block came from this allocator, and the last buffer that named a part of it
        // is gone. A queue leaks the buffers that its device may still hold.
        unsafe { self.allocator.deallocate(self.block) };
    }
}

/// `len` bytes, aligned to 16 bytes or to the page size from one page up.
pub(crate) fn layout(len: usize) -> Result<Layout, DmaError> {
    let align = if len < PAGE { 16 } else { PAGE };
    Layout::from_size_align(len, align).map_err(|_| DmaError::BadSize)
}

/// An owned, exclusive piece of memory that a device can reach.
///
/// It reads and writes as a byte slice. To let a device use it, move it into a queue as part of a
/// [`Chain`](crate::Chain).
pub struct DmaBuffer {
    ptr: NonNull<u8>,
    pub(crate) addr: DmaAddr,
    pub(crate) len: u32,
    pub(crate) space: AddressSpaceId,
    region: Arc<Region>,
}

// SAFETY: the buffer owns its bytes exclusively, like a `Box<[u8]>`.
unsafe impl Send for DmaBuffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for DmaBuffer {}

impl DmaBuffer {
    /// Takes `len` zeroed bytes, aligned to 16 bytes or to the page size from one page up.
    ///
    /// # Errors
    /// [`DmaError`], if the size is zero or above `u32::MAX`, or memory is short.
    pub fn new(allocator: &Arc<dyn DmaAllocator>, len: usize) -> Result<Self, DmaError> {
        Self::with_layout(allocator, layout(len)?)
    }

    /// Takes `len` zeroed bytes whose address is a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// [`DmaError`], if the size or the alignment is unusable, or memory is short.
    pub fn with_alignment(
        allocator: &Arc<dyn DmaAllocator>,
        len: usize,
        align: usize,
    ) -> Result<Self, DmaError> {
        let layout = Layout::from_size_align(len, align).map_err(|_| DmaError::BadSize)?;
        Self::with_layout(allocator, layout)
    }

    fn with_layout(allocator: &Arc<dyn DmaAllocator>, layout: Layout) -> Result<Self, DmaError> {
        let len = u32::try_from(layout.size()).map_err(|_| DmaError::BadSize)?;
        let region = Region::new(allocator, layout)?;
        Ok(Self {
            ptr: region.ptr(),
            addr: region.addr(),
            len,
            space: allocator.space(),
            region: Arc::new(region),
        })
    }

    /// Takes one allocation and cuts it into `count` buffers of `size` bytes each.
    ///
    /// # Errors
    /// [`DmaError`], as for [`DmaBuffer::new`].
    pub fn pool(
        allocator: &Arc<dyn DmaAllocator>,
        count: usize,
        size: usize,
    ) -> Result<Vec<Self>, DmaError> {
        let total = count.checked_mul(size).ok_or(DmaError::BadSize)?;
        let mut rest = Self::new(allocator, total)?;
        let mut parts = Vec::with_capacity(count);
        for _ in 1..count {
            let (part, tail) = rest.split_at(size);
            parts.push(part);
            rest = tail;
        }
        parts.push(rest);
        Ok(parts)
    }

    /// Cuts the buffer in two; both parts must hold at least one byte.
    ///
    /// # Panics
    /// If `mid` is zero or not below the length.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        assert!(
            0 < mid && mid < self.len(),
            "both parts of a buffer must hold a byte"
        );
        let head_len = u32::try_from(mid).expect("below the length, which is 32 bits");
        let tail = Self {
            // SAFETY: `mid` lies inside the buffer.
            ptr: unsafe { self.ptr.add(mid) },
            addr: self.addr.offset(mid),
            len: self.len - head_len,
            space: self.space,
            region: Arc::clone(&self.region),
        };
        let head = Self {
            len: head_len,
            ..self
        };
        (head, tail)
    }

    /// Where the device finds the first byte.
    #[must_use]
    pub fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// Where the processor finds the first byte, for ring memory that both sides use at once.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The allocation that the buffer is a part of.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Whose address that is.
    pub(crate) fn space(&self) -> AddressSpaceId {
        self.space
    }

    /// The length in bytes, which always fits a descriptor.
    pub(crate) fn len_u32(&self) -> u32 {
        self.len
    }
}

impl Deref for DmaBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.len as usize;
        // SAFETY: the buffer owns `len` initialised bytes at `ptr`, and `&self` keeps writers out.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), len) }
    }
}

impl DerefMut for DmaBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len as usize;
        // SAFETY: as for `deref`, and `&mut self` is the only access.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr(), len) }
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuffer({:#x}, {} bytes)", self.addr, self.len)
    }
}
