//! Descriptors in private memory, and the tables of them that a driver keeps outside the ring.

use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use super::error::Broken;
use super::memory::{Access, Memory, Piece};
use super::pieces::Pieces;
use crate::format::DESCRIPTOR;
use crate::{DmaAddr, Segment};

/// [`DESCRIPTOR`] as lengths in descriptors have it.
const SIZE: u32 = 16;
const _: () = assert!(SIZE as usize == DESCRIPTOR);

/// A descriptor, read once. Nothing in it is checked.
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// The next descriptor in a split ring, the buffer id in a packed one.
    pub(super) next_or_id: u16,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "takes fields out of a word"
)]
impl Descriptor {
    /// From the two words of a split descriptor (VIRTIO 1.2, 2.7.5).
    #[inline]
    pub(super) fn split(addr: u64, rest: u64) -> Self {
        Self {
            addr,
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next_or_id: (rest >> 48) as u16,
        }
    }

    /// From the two words of a packed descriptor (VIRTIO 1.2, 2.8.13).
    #[inline]
    pub(super) fn packed(addr: u64, rest: u64) -> Self {
        Self {
            addr,
            len: rest as u32,
            next_or_id: (rest >> 32) as u16,
            flags: (rest >> 48) as u16,
        }
    }
}

/// An indirect table (VIRTIO 1.2, 2.7.5.3 and 2.8.7), anywhere in the driver's memory, aligned or
/// not.
pub(super) struct Table<'a, M> {
    memory: &'a M,
    addr: DmaAddr,
    entries: u16,
    /// The byte of the table from which on `piece` has it: the mapping that was used last.
    start: u32,
    piece: Piece,
}

impl<'a, M: Memory> Table<'a, M> {
    /// The table that `descriptor` names, of at most `limit` entries.
    #[inline]
    pub(super) fn new(memory: &'a M, descriptor: Descriptor, limit: u16) -> Result<Self, Broken> {
        let Descriptor { addr, len, .. } = descriptor;
        if len == 0 || !len.is_multiple_of(SIZE) {
            return Err(Broken::IndirectLength);
        }
        if addr.checked_add(u64::from(len - 1)).is_none() {
            return Err(Broken::AddressWrap);
        }
        let entries = match u16::try_from(len / SIZE) {
            Ok(entries) if entries <= limit => entries,
            _ => return Err(Broken::IndirectTooLong),
        };
        let addr = DmaAddr(addr);
        let piece = memory.translate(addr, len, Access::Read);
        Ok(Self {
            memory,
            addr,
            entries,
            start: 0,
            piece: piece.map_err(Broken::IndirectFault)?,
        })
    }

    /// How many entries the table has.
    #[inline]
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// The two words of entry `index`, which is below [`Table::entries`].
    #[inline]
    pub(super) fn entry(&mut self, index: u16) -> Result<(u64, u64), Broken> {
        let offset = u32::from(index) * SIZE;
        let inside = offset.wrapping_sub(self.start);
        if u64::from(inside) + u64::from(SIZE) > u64::from(self.piece.len) {
            return self.translate(offset);
        }
        // SAFETY: the entry lies inside the piece.
        let ptr = unsafe { self.piece.ptr.add(inside as usize) };
        // SAFETY: likewise.
        Ok(unsafe { words(ptr) })
    }

    /// An entry outside of the mapping that was used last.
    #[cold]
    fn translate(&mut self, offset: u32) -> Result<(u64, u64), Broken> {
        // Does not wrap: the whole table was checked when it was made.
        let addr = DmaAddr(self.addr.0.wrapping_add(u64::from(offset)));
        let left = u32::from(self.entries) * SIZE - offset;
        let piece = self
            .memory
            .translate(addr, left, Access::Read)
            .map_err(Broken::IndirectFault)?;
        if piece.len >= SIZE {
            (self.start, self.piece) = (offset, piece);
            // SAFETY: the piece begins with the entry.
            return Ok(unsafe { words(piece.ptr) });
        }
        // The entry lies across mappings.
        let segment = Segment::described(addr, SIZE);
        let mut bytes = [0; DESCRIPTOR];
        Pieces::new(self.memory, &[segment], 0, DESCRIPTOR, Access::Read)
            .read(&mut bytes)
            .map_err(|error| Broken::IndirectFault(error.fault))?;
        let (words, _) = bytes.as_chunks();
        Ok((u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])))
    }
}

/// The entries of the table that `descriptor` names, at most `limit`, if they lie in one mapping
/// and aligned, as they mostly do. Each word is to be read once. Nothing is said of what is wrong
/// otherwise.
#[inline(always)]
pub(super) fn entries_in_place<M: Memory>(
    memory: &M,
    descriptor: Descriptor,
    limit: u16,
) -> Option<&[[AtomicU64; 2]]> {
    let Descriptor { addr, len, .. } = descriptor;
    let entries = len / SIZE;
    if !len.is_multiple_of(SIZE) || entries == 0 || entries > u32::from(limit) {
        return None;
    }
    let ptr = memory.contiguous(DmaAddr(addr), len, Access::Read)?;
    let ptr = ptr.cast::<[AtomicU64; 2]>();
    if !ptr.is_aligned() {
        return None;
    }
    // SAFETY: the memory has all of the table, which stays valid as long as the memory is
    // borrowed; both sides access it atomically.
    Some(unsafe { slice::from_raw_parts(ptr.as_ptr(), entries as usize) })
}

/// Reads the two words of a descriptor, each of them once.
///
/// # Safety
/// `ptr` must be valid for reads of 16 bytes.
#[inline]
unsafe fn words(ptr: NonNull<u8>) -> (u64, u64) {
    let ptr = ptr.cast::<u64>();
    if !ptr.is_aligned() {
        // SAFETY: the caller vouches for the 16 bytes.
        return unsafe { unaligned_words(ptr) };
    }
    // SAFETY: likewise.
    let second = unsafe { ptr.add(1) };
    let word = |ptr: NonNull<u64>| {
        // SAFETY: likewise, 8 bytes each, and the alignment was just checked.
        let cell = unsafe { AtomicU64::from_ptr(ptr.as_ptr()) };
        u64::from_le(cell.load(Ordering::Relaxed))
    };
    (word(ptr), word(second))
}

/// # Safety
/// As for [`words`].
#[cold]
unsafe fn unaligned_words(ptr: NonNull<u64>) -> (u64, u64) {
    let mut bytes = [0; DESCRIPTOR];
    for (index, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the 16 bytes.
        let from = unsafe { ptr.cast::<u8>().add(index) };
        // SAFETY: likewise; volatile, so that each byte is read once.
        *byte = unsafe { from.read_volatile() };
    }
    let (words, _) = bytes.as_chunks();
    (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
}
