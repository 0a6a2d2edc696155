//! One part of a ring in the driver's memory, cell by cell.
//!
//! The host's pointer to the part is kept, so that an access costs a comparison. Where the part is
//! scattered over several mappings, the pointer moves from one to the other as they are needed.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::config::NewError;
use super::dirty::DirtyLog;
use super::error::Broken;
use super::memory::{Access, Fault, Memory, Piece};
use crate::DmaAddr;
use crate::copy::{copy_in, copy_out};

/// The driver's memory and the log of what is written to it.
pub(super) struct Host<M, L> {
    pub(super) memory: M,
    pub(super) log: L,
}

/// A part of a ring that is only read, or only written.
pub(super) struct Area {
    addr: DmaAddr,
    len: u32,
    access: Access,
    window: Window,
}

/// The mapping of an area that was used last.
struct Window {
    /// Where it starts in the area.
    start: u32,
    /// Its length in bytes; 0 if nothing is translated.
    len: u32,
    ptr: NonNull<u8>,
}

// SAFETY: what a `Memory` translates may be used on any thread, and the window on its own reaches
// nothing.
unsafe impl Send for Window {}
// SAFETY: as for `Send`; every access through a shared area is atomic.
unsafe impl Sync for Window {}

impl Area {
    /// A part of `len` bytes at `addr`, a multiple of `align`.
    pub(super) fn new(
        addr: DmaAddr,
        len: u32,
        align: u64,
        access: Access,
    ) -> Result<Self, NewError> {
        if !addr.0.is_multiple_of(align) || addr.0.checked_add(u64::from(len)).is_none() {
            return Err(NewError::BadAddress);
        }
        let window = Window {
            start: 0,
            len: 0,
            ptr: NonNull::dangling(),
        };
        Ok(Self {
            addr,
            len,
            access,
            window,
        })
    }

    /// Forgets what was translated.
    pub(super) fn forget(&mut self) {
        self.window.len = 0;
    }

    #[inline]
    pub(super) fn load16<M: Memory>(
        &mut self,
        memory: &M,
        offset: u32,
        ordering: Ordering,
    ) -> Result<u16, Broken> {
        let cell = self.cell::<M, 2>(memory, offset)?;
        if let Some(bytes) = load_bytes(memory, cell) {
            return Ok(u16::from_le_bytes(bytes));
        }
        // SAFETY: `cell` gives memory of this width, aligned to it and valid; both sides access it
        // atomically.
        let cell = unsafe { AtomicU16::from_ptr(cell.as_ptr().cast()) };
        Ok(u16::from_le(cell.load(ordering)))
    }

    #[inline]
    pub(super) fn load32<M: Memory>(&mut self, memory: &M, offset: u32) -> Result<u32, Broken> {
        let cell = self.cell::<M, 4>(memory, offset)?;
        if let Some(bytes) = load_bytes(memory, cell) {
            return Ok(u32::from_le_bytes(bytes));
        }
        // SAFETY: as for `load16`.
        let cell = unsafe { AtomicU32::from_ptr(cell.as_ptr().cast()) };
        Ok(u32::from_le(cell.load(Ordering::Relaxed)))
    }

    #[inline]
    pub(super) fn load64<M: Memory>(&mut self, memory: &M, offset: u32) -> Result<u64, Broken> {
        let cell = self.cell::<M, 8>(memory, offset)?;
        if let Some(bytes) = load_bytes(memory, cell) {
            return Ok(u64::from_le_bytes(bytes));
        }
        // SAFETY: as for `load16`.
        let cell = unsafe { AtomicU64::from_ptr(cell.as_ptr().cast()) };
        Ok(u64::from_le(cell.load(Ordering::Relaxed)))
    }

    #[inline]
    pub(super) fn store16<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        offset: u32,
        value: u16,
        ordering: Ordering,
    ) -> Result<(), Broken> {
        let cell = self.cell::<M, 2>(&host.memory, offset)?;
        if !store_bytes(&host.memory, cell, value.to_le_bytes()) {
            // SAFETY: as for `load16`, and the area was translated for writing.
            let cell = unsafe { AtomicU16::from_ptr(cell.as_ptr().cast()) };
            cell.store(value.to_le(), ordering);
        }
        host.log.written(self.at(offset), 2);
        Ok(())
    }

    #[inline]
    pub(super) fn store32<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        offset: u32,
        value: u32,
    ) -> Result<(), Broken> {
        let cell = self.cell::<M, 4>(&host.memory, offset)?;
        if !store_bytes(&host.memory, cell, value.to_le_bytes()) {
            // SAFETY: as for `store16`.
            let cell = unsafe { AtomicU32::from_ptr(cell.as_ptr().cast()) };
            cell.store(value.to_le(), Ordering::Relaxed);
        }
        host.log.written(self.at(offset), 4);
        Ok(())
    }

    /// The two words of the descriptor at `offset`, a multiple of 16.
    #[inline]
    pub(super) fn load_descriptor<M: Memory>(
        &mut self,
        memory: &M,
        offset: u32,
    ) -> Result<(u64, u64), Broken> {
        let Some(ptr) = self.words(memory, offset, 16) else {
            return Ok((
                self.load64(memory, offset)?,
                self.load64(memory, offset + 8)?,
            ));
        };
        let ptr = ptr.cast::<[AtomicU64; 2]>();
        // SAFETY: the window has these 16 bytes, aligned as they are for the driver; both sides
        // access them atomically.
        let [addr, rest] = unsafe { ptr.as_ref() };
        let load = |word: &AtomicU64| u64::from_le(word.load(Ordering::Relaxed));
        Ok((load(addr), load(rest)))
    }

    /// The flags of the packed descriptor at `offset`, a multiple of 16, and if they are those of
    /// one that is offered, its two words. What the driver wrote before the flags is visible then.
    #[inline]
    pub(super) fn load_offered<M: Memory>(
        &mut self,
        memory: &M,
        offset: u32,
        is_offered: impl Fn(u16) -> bool,
    ) -> Result<Option<(u16, u64, u64)>, Broken> {
        let Some(ptr) = self.words(memory, offset, 16) else {
            let flags = self.load16(memory, offset + 14, Ordering::Acquire)?;
            if !is_offered(flags) {
                return Ok(None);
            }
            let (addr, rest) = self.load_descriptor(memory, offset)?;
            return Ok(Some((flags, addr, rest)));
        };
        // SAFETY: the window has these 16 bytes, aligned as they are for the driver.
        let flags = unsafe { ptr.add(14) };
        // SAFETY: likewise; both sides access them atomically.
        let flags = unsafe { AtomicU16::from_ptr(flags.as_ptr().cast()) };
        let flags = u16::from_le(flags.load(Ordering::Acquire));
        if !is_offered(flags) {
            return Ok(None);
        }
        // SAFETY: as for `load_descriptor`.
        let [addr, rest] = unsafe { ptr.cast::<[AtomicU64; 2]>().as_ref() };
        let load = |word: &AtomicU64| u64::from_le(word.load(Ordering::Relaxed));
        Ok(Some((flags, load(addr), load(rest))))
    }

    /// Stores two words of 32 bits that follow each other.
    #[inline]
    pub(super) fn store32_pair<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        offset: u32,
        [first, second]: [u32; 2],
    ) -> Result<(), Broken> {
        let Some(ptr) = self.words(&host.memory, offset, 8) else {
            self.store32(host, offset, first)?;
            return self.store32(host, offset + 4, second);
        };
        let ptr = ptr.cast::<[AtomicU32; 2]>();
        // SAFETY: as for `load_descriptor`, and the area was translated for writing.
        let cells = unsafe { ptr.as_ref() };
        cells[0].store(first.to_le(), Ordering::Relaxed);
        cells[1].store(second.to_le(), Ordering::Relaxed);
        host.log.written(self.at(offset), 8);
        Ok(())
    }

    /// Stores a word of 32 bits at `offset`, a multiple of 8, and one of 16 behind it.
    #[inline]
    pub(super) fn store32_then16<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        offset: u32,
        first: u32,
        second: u16,
    ) -> Result<(), Broken> {
        let Some(ptr) = self.words(&host.memory, offset, 8) else {
            self.store32(host, offset, first)?;
            return self.store16(host, offset + 4, second, Ordering::Relaxed);
        };
        // SAFETY: as for `load_descriptor`, and the area was translated for writing.
        let word = unsafe { AtomicU32::from_ptr(ptr.as_ptr().cast()) };
        word.store(first.to_le(), Ordering::Relaxed);
        // SAFETY: the window has 8 bytes there.
        let ptr = unsafe { ptr.add(4) };
        // SAFETY: likewise.
        let half = unsafe { AtomicU16::from_ptr(ptr.as_ptr().cast()) };
        half.store(second.to_le(), Ordering::Relaxed);
        host.log.written(self.at(offset), 6);
        Ok(())
    }

    /// The host's pointer to a cell of `WIDTH` bytes, aligned to it.
    #[inline]
    fn cell<M: Memory, const WIDTH: u32>(
        &mut self,
        memory: &M,
        offset: u32,
    ) -> Result<NonNull<u8>, Broken> {
        debug_assert!(offset.is_multiple_of(WIDTH));
        match self.window(offset, WIDTH) {
            Some(ptr) => Ok(ptr),
            None => self
                .translate(memory, offset, WIDTH)
                .map_err(Broken::RingFault),
        }
    }

    /// As [`window`](Self::window), for access in words; nothing where others access the memory
    /// byte by byte and that makes a difference.
    #[inline]
    fn words<M: Memory>(&self, memory: &M, offset: u32, len: u32) -> Option<NonNull<u8>> {
        let window = self.window(offset, len);
        window.filter(|_| !(cfg!(miri) && memory.is_bytewise()))
    }

    /// The host's pointer to `len` bytes at `offset`, if the mapping that was used last has all of
    /// them.
    #[inline]
    fn window(&self, offset: u32, len: u32) -> Option<NonNull<u8>> {
        let inside = offset.wrapping_sub(self.window.start);
        if u64::from(inside) + u64::from(len) > u64::from(self.window.len) {
            return None;
        }
        // SAFETY: the bytes lie inside the window.
        Some(unsafe { self.window.ptr.add(inside as usize) })
    }

    /// Moves the window so that it starts at `offset`.
    #[cold]
    fn translate<M: Memory>(
        &mut self,
        memory: &M,
        offset: u32,
        width: u32,
    ) -> Result<NonNull<u8>, Fault> {
        let end = offset.checked_add(width).filter(|&end| end <= self.len);
        let end = end.ok_or(Fault::NoMapping)?;
        // The whole area if nothing is translated yet: where it is contiguous, this is the only
        // time.
        let first = if self.window.len == 0 { 0 } else { offset };
        for start in [first, offset] {
            let at = self.at(start);
            let piece = memory.translate(at, self.len - start, self.access);
            if let Ok(Piece { ptr, len, .. }) = piece
                && len >= end - start
                && aligned(ptr, at)
            {
                self.window = Window { start, len, ptr };
                // SAFETY: the cell lies inside the piece.
                return Ok(unsafe { ptr.add((offset - start) as usize) });
            }
        }
        memory.translate(self.at(offset), width, self.access)?;
        Err(Fault::Straddles)
    }

    /// The driver's address of the cell at `offset`.
    #[inline]
    fn at(&self, offset: u32) -> DmaAddr {
        // Does not wrap: the whole area was checked when it was made.
        DmaAddr(self.addr.0.wrapping_add(u64::from(offset)))
    }
}

/// A cell as bytes, where others access it so and that makes a difference.
#[inline]
fn load_bytes<M: Memory, const N: usize>(memory: &M, cell: NonNull<u8>) -> Option<[u8; N]> {
    if !(cfg!(miri) && memory.is_bytewise()) {
        return None;
    }
    let mut bytes = [0; N];
    // SAFETY: a cell of this width is valid, and accessed atomically.
    unsafe { copy_out(cell, &mut bytes) };
    fence(Ordering::Acquire);
    Some(bytes)
}

/// The same for a store; false where it makes no difference.
#[inline]
fn store_bytes<M: Memory, const N: usize>(memory: &M, cell: NonNull<u8>, bytes: [u8; N]) -> bool {
    if !(cfg!(miri) && memory.is_bytewise()) {
        return false;
    }
    fence(Ordering::Release);
    // SAFETY: as for `load_bytes`, and the area was translated for writing.
    unsafe { copy_in(cell, &bytes) };
    true
}

/// Whether a cell of any width that is aligned for the driver is aligned on the host.
fn aligned(ptr: NonNull<u8>, addr: DmaAddr) -> bool {
    const WIDEST_CELL: u64 = 8;
    let difference = (ptr.addr().get() as u64).wrapping_sub(addr.0);
    difference.is_multiple_of(WIDEST_CELL)
}
