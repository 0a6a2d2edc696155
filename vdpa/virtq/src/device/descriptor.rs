//! Descriptors in private memory, and the tables of them that a driver keeps outside the ring.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::copy::Pieces;
use super::error::Broken;
use super::memory::{Access, Memory, Piece};
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

/// An indirect table (VIRTIO 1.2, 2.7.5.3 and 2.8.7), anywhere in the driver's memory, aligned or not.
pub(super) struct Table {
    addr: DmaAddr,
    entries: u16,
    /// The mapping that was used last, and the byte of the table where it starts.
    window: Option<(u32, Piece)>,
}

impl Table {
    /// The table that `descriptor` names, of at most `limit` entries.
    #[inline]
    pub(super) fn new(descriptor: Descriptor, limit: usize) -> Result<Self, Broken> {
        let Descriptor { addr, len, .. } = descriptor;
        if len == 0 || !len.is_multiple_of(SIZE) {
            return Err(Broken::IndirectLength);
        }
        if addr.checked_add(u64::from(len - 1)).is_none() {
            return Err(Broken::AddressWrap);
        }
        match u16::try_from(len / SIZE) {
            Ok(entries) if usize::from(entries) <= limit => Ok(Self {
                addr: DmaAddr(addr),
                entries,
                window: None,
            }),
            _ => Err(Broken::IndirectTooLong),
        }
    }

    /// How many entries the table has.
    #[inline]
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// The two words of entry `index`, which is below [`Table::entries`].
    #[inline]
    pub(super) fn entry<M: Memory>(
        &mut self,
        memory: &M,
        index: u16,
    ) -> Result<(u64, u64), Broken> {
        let offset = u32::from(index) * SIZE;
        if let Some((start, piece)) = self.window
            && offset >= start
            && offset - start + SIZE <= piece.len
        {
            // SAFETY: the entry lies inside the piece.
            let ptr = unsafe { piece.ptr.add((offset - start) as usize) };
            return Ok(words(ptr));
        }
        self.translate(memory, offset)
    }

    fn translate<M: Memory>(&mut self, memory: &M, offset: u32) -> Result<(u64, u64), Broken> {
        // Does not wrap: the whole table was checked when it was made.
        let addr = DmaAddr(self.addr.0.wrapping_add(u64::from(offset)));
        let left = u32::from(self.entries) * SIZE - offset;
        let piece = memory
            .translate(addr, left, Access::Read)
            .map_err(Broken::IndirectFault)?;
        if piece.len >= SIZE {
            self.window = Some((offset, piece));
            return Ok(words(piece.ptr));
        }
        // The entry lies across mappings.
        let segment = Segment { addr, len: SIZE };
        let mut bytes = [0; DESCRIPTOR];
        Pieces::new(memory, &[segment], 0, DESCRIPTOR, Access::Read)
            .read(&mut bytes)
            .map_err(|error| Broken::IndirectFault(error.fault))?;
        let (words, _) = bytes.as_chunks();
        Ok((u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])))
    }
}

/// Reads the two words of a descriptor, each of them once.
#[inline]
fn words(ptr: NonNull<u8>) -> (u64, u64) {
    let ptr = ptr.cast::<u64>();
    // SAFETY: the callers give 16 valid bytes.
    let second = unsafe { ptr.add(1) };
    (word(ptr), word(second))
}

#[inline]
fn word(ptr: NonNull<u64>) -> u64 {
    if ptr.is_aligned() {
        // SAFETY: the callers give 8 valid bytes, and the alignment was just checked.
        let cell = unsafe { AtomicU64::from_ptr(ptr.as_ptr()) };
        return u64::from_le(cell.load(Ordering::Relaxed));
    }
    let mut bytes = [0; 8];
    for (index, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: the callers give 8 valid bytes.
        let from = unsafe { ptr.cast::<u8>().add(index) };
        // SAFETY: likewise; volatile, so that each byte is read once.
        *byte = unsafe { from.read_volatile() };
    }
    u64::from_le_bytes(bytes)
}
