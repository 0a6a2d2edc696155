//! Memory behind an address translation, such as an IOTLB. Not the translation itself.

use alloc::sync::Arc;

use super::memory::{Access, Fault, Memory, Piece};
use crate::DmaAddr;

/// Where a translation leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The address in the memory below.
    pub addr: DmaAddr,
    /// How many bytes follow it there before the mapping ends.
    pub len: u32,
}

/// A translation of the driver's addresses to those of another memory, with permissions.
pub trait Translate {
    /// Translates the start of a range of `len` bytes, not zero. It may cover less; the rest is
    /// asked for in turn.
    ///
    /// # Errors
    /// [`Fault::NoMapping`] or [`Fault::Permission`], if the first byte cannot be accessed in this
    /// way.
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Translation, Fault>;

    /// A number that grows whenever a mapping is changed or withdrawn.
    fn generation(&self) -> u64;
}

impl<T: Translate + ?Sized> Translate for Arc<T> {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Translation, Fault> {
        (**self).translate(addr, len, access)
    }

    #[inline]
    fn generation(&self) -> u64 {
        (**self).generation()
    }
}

/// The memory `M` as seen through the translation `T`.
#[derive(Clone, Copy, Debug)]
pub struct Translated<T, M> {
    translate: T,
    memory: M,
}

impl<T: Translate, M: Memory> Translated<T, M> {
    /// Puts a translation before a memory.
    pub fn new(translate: T, memory: M) -> Self {
        Self { translate, memory }
    }
}

// SAFETY: a piece is one of the memory below, no longer than asked for, under the address asked
// for; the generation grows with that of the memory below.
unsafe impl<T: Translate, M: Memory> Memory for Translated<T, M> {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        let below = self.translate.translate(addr, len, access)?;
        // A translation is safe code, and must not be able to lengthen the range or to stop
        // progress.
        if below.len == 0 {
            return Err(Fault::NoMapping);
        }
        let piece = self
            .memory
            .translate(below.addr, below.len.min(len), access)?;
        Ok(Piece { addr, ..piece })
    }

    #[inline]
    fn generation(&self) -> u64 {
        // Both only grow, so the sum changes whenever one of them does.
        self.translate
            .generation()
            .wrapping_add(self.memory.generation())
    }

    #[inline]
    fn is_bytewise(&self) -> bool {
        self.memory.is_bytewise()
    }
}
