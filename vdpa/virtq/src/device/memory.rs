//! How the device side reaches the driver's memory. Not how addresses are mapped: that is the part
//! of what implements [`Memory`].

use alloc::sync::Arc;
use core::ptr::NonNull;

use crate::DmaAddr;

/// What the device side is going to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Write it.
    Write,
}

/// Why memory of the driver cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing is mapped at the address.
    #[error("nothing is mapped at this address")]
    NoMapping,
    /// The mapping does not permit the access.
    #[error("the mapping does not permit this access")]
    Permission,
    /// A cell of a ring straddles two mappings, or is not aligned on the host as it is for the
    /// driver, so that it cannot be accessed in one piece.
    #[error("a ring cell cannot be accessed in one piece")]
    Straddles,
}

/// A stretch of the driver's memory that is contiguous on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where the driver says it is.
    pub addr: DmaAddr,
    /// Where it is on the host.
    pub ptr: NonNull<u8>,
    /// Its length in bytes, not zero.
    pub len: u32,
}

/// Memory of a driver, by the addresses that the driver puts into its rings.
///
/// # Safety
/// A piece that [`translate`](Memory::translate) returns starts at the address asked for, is
/// between one byte and the length asked for, and points to memory that is valid for reads, and for
/// writes if asked for with [`Access::Write`], on any thread, at least until
/// [`generation`](Memory::generation) has returned another number or the `Memory` is dropped. No
/// reference of Rust covers that memory: the driver changes it at any time.
pub unsafe trait Memory {
    /// Finds the host's memory behind `addr`, as much of the `len` bytes (not zero) as is
    /// contiguous. The rest is found by asking for what follows.
    ///
    /// # Errors
    /// [`Fault`], if the first byte cannot be accessed in this way.
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault>;

    /// The host's memory behind all of the `len` bytes (not zero) at `addr`: what
    /// [`translate`](Self::translate) returns for them, if that is one piece.
    #[inline]
    fn contiguous(&self, addr: DmaAddr, len: u32, access: Access) -> Option<NonNull<u8>> {
        let piece = self.translate(addr, len, access).ok()?;
        (piece.len == len).then_some(piece.ptr)
    }

    /// A number that grows whenever a mapping is changed or withdrawn, so that what was translated
    /// before must be translated anew; memory that was kept for it may go with this call. It is
    /// read at the start of each operation on a ring.
    #[inline]
    fn generation(&self) -> u64 {
        0
    }

    /// Whether programs may access the memory byte by byte while a queue works on it, as those with
    /// a [`SharedMemory`](crate::SharedMemory) do. It matters to Miri alone: to a processor,
    /// accesses of different sizes are no race.
    #[inline]
    fn is_bytewise(&self) -> bool {
        false
    }
}

// SAFETY: whatever the memory behind the reference promises holds for the reference.
unsafe impl<M: Memory + ?Sized> Memory for &M {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        (**self).translate(addr, len, access)
    }

    #[inline]
    fn generation(&self) -> u64 {
        (**self).generation()
    }

    #[inline]
    fn is_bytewise(&self) -> bool {
        (**self).is_bytewise()
    }
}

// SAFETY: whatever the shared memory promises holds for each share of it.
unsafe impl<M: Memory + ?Sized> Memory for Arc<M> {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        (**self).translate(addr, len, access)
    }

    #[inline]
    fn generation(&self) -> u64 {
        (**self).generation()
    }

    #[inline]
    fn is_bytewise(&self) -> bool {
        (**self).is_bytewise()
    }
}
