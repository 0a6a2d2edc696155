//! The translation cache of one queue: what PCI calls a device TLB, in front of an IOTLB that many
//! share.
//!
//! An access that hits takes no lock. Not the IOTLB: where addresses lead is found by a [`Lookup`],
//! which is safe code. What it returns is checked, and memory stays alive as long as a queue may
//! use it, so that no lookup can lead a queue astray.
//!
//! Source: PCI Express 6.0, section 10 (Address Translation Services), for the vocabulary.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::ptr::NonNull;

use super::memory::{Access, Fault, Memory, Piece};
use crate::{DeviceMemory, DmaAddr};

/// How many pages are found at once: a power of two.
const LINES: usize = 256;
/// How much of an address lies inside of such a page.
const PAGE_BITS: u32 = 12;
/// How many mappings are remembered for their other pages.
const RECENT: usize = 8;
/// How many memories may be kept before all are dropped.
const KEPT_MAX: usize = 512;

/// What is mapped around an address.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The first address of the mapping.
    pub first: DmaAddr,
    /// The last one.
    pub last: DmaAddr,
    /// Whether the device may read there.
    pub readable: bool,
    /// Whether the device may write there.
    pub writable: bool,
    /// The memory behind it.
    pub memory: DeviceMemory,
    /// Where in that memory `first` lies, in bytes.
    pub offset: u64,
}

/// Finds what is mapped at an address of a device.
///
/// It is safe to implement: what it returns is checked against the memory.
pub trait Lookup {
    /// The mapping that `addr` lies in.
    ///
    /// # Errors
    /// [`Fault::NoMapping`] or [`Fault::Permission`], if the address cannot be accessed in this
    /// way.
    fn lookup(&self, addr: DmaAddr, access: Access) -> Result<Mapped, Fault>;

    /// A number that grows whenever a mapping is changed or withdrawn: after the change, and before
    /// the one who made it is told that it holds.
    fn generation(&self) -> u64;
}

impl<L: Lookup + ?Sized> Lookup for &L {
    #[inline]
    fn lookup(&self, addr: DmaAddr, access: Access) -> Result<Mapped, Fault> {
        (**self).lookup(addr, access)
    }

    #[inline]
    fn generation(&self) -> u64 {
        (**self).generation()
    }
}

impl<L: Lookup + ?Sized> Lookup for Arc<L> {
    #[inline]
    fn lookup(&self, addr: DmaAddr, access: Access) -> Result<Mapped, Fault> {
        (**self).lookup(addr, access)
    }

    #[inline]
    fn generation(&self) -> u64 {
        (**self).generation()
    }
}

/// The memory of one queue's driver, as a [`Lookup`] finds it.
///
/// A withdrawn mapping is no longer translated as soon as the lookup's generation has grown. Its
/// memory is kept until the queue looks at the generation, which it does in each operation and in
/// [`DeviceQueue::refresh`](super::DeviceQueue::refresh).
pub struct DeviceTlb<L> {
    lookup: L,
    /// The lookup's generation that everything known is from.
    seen: Cell<u64>,
    /// The same, or an earlier one as long as a piece may be out that must not stay.
    current: Cell<u64>,
    /// What [`Memory::generation`] returns.
    generation: Cell<u64>,
    /// A mapping for each page that was used, by the number of the page.
    lines: Box<[Cell<Line>; LINES]>,
    /// The mappings that were found last, and the one that gives way next.
    recent: [Cell<Line>; RECENT],
    oldest: Cell<usize>,
    /// All memory that a line leads to or a piece may be out of, in the order of its ids.
    kept: RefCell<Vec<DeviceMemory>>,
}

/// A mapping that has been checked: `first` and the `rest` bytes after it lie inside the memory at
/// `ptr`.
#[derive(Clone, Copy)]
struct Line {
    first: DmaAddr,
    rest: u64,
    ptr: NonNull<u8>,
    readable: bool,
    writable: bool,
}

// SAFETY: shared memory may be used from any thread, and the cache that has the line keeps it
// alive.
unsafe impl Send for Line {}

impl<L: Lookup> DeviceTlb<L> {
    /// An empty cache before a lookup.
    pub fn new(lookup: L) -> Self {
        let seen = lookup.generation();
        Self {
            lookup,
            seen: Cell::new(seen),
            current: Cell::new(seen),
            generation: Cell::new(0),
            lines: Box::new([const { Cell::new(Line::EMPTY) }; LINES]),
            recent: [const { Cell::new(Line::EMPTY) }; RECENT],
            oldest: Cell::new(0),
            kept: RefCell::default(),
        }
    }

    /// Where the mapping of an address is looked for first.
    #[inline]
    fn line(&self, addr: DmaAddr) -> &Cell<Line> {
        let page = addr.0 >> PAGE_BITS;
        &self.lines[page as usize % LINES]
    }

    /// The same as [`Memory::contiguous`] where the address was not looked for before.
    #[cold]
    fn contiguous_elsewhere(&self, addr: DmaAddr, len: u32, access: Access) -> Option<NonNull<u8>> {
        let piece = self.translate(addr, len, access).ok()?;
        (piece.len == len).then_some(piece.ptr)
    }

    /// Finds the mapping around `addr`, and keeps it for the next time.
    #[cold]
    fn miss(&self, now: u64, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        if now == self.seen.get()
            && let Some((line, piece)) = self.recall(addr, len, access)
        {
            self.line(addr).set(line);
            return Ok(piece);
        }
        let mapped = self.lookup.lookup(addr, access)?;
        let line = Line::new(&mapped).ok_or(Fault::NoMapping)?;
        if !line.contains(addr) {
            return Err(Fault::NoMapping);
        }
        let piece = line.piece(addr, len, access).ok_or(Fault::Permission)?;
        self.follow(now);
        self.keep(mapped.memory);
        self.line(addr).set(line);
        self.recent[self.oldest.get()].set(line);
        self.oldest.set((self.oldest.get() + 1) % RECENT);
        Ok(piece)
    }

    /// Another page of a mapping that was found before.
    fn recall(&self, addr: DmaAddr, len: u32, access: Access) -> Option<(Line, Piece)> {
        self.recent.iter().map(Cell::get).find_map(|line| {
            let piece = line.piece(addr, len, access)?;
            Some((line, piece))
        })
    }

    /// Uses no line any more that is from an earlier generation. Pieces of them may be out.
    fn follow(&self, now: u64) {
        if now != self.seen.get() {
            self.seen.set(now);
            self.outdate();
            self.forget();
        }
    }

    /// Keeps memory alive until another generation starts, which is soon if it is too much.
    fn keep(&self, memory: DeviceMemory) {
        let mut kept = self.kept.borrow_mut();
        if let Err(place) = kept.binary_search_by_key(&memory.id(), |other| other.id()) {
            kept.insert(place, memory);
        }
        if kept.len() > KEPT_MAX {
            self.outdate();
        }
    }

    /// Lets another generation start with the next look at it: a number that only grows has passed
    /// this one.
    fn outdate(&self) {
        self.current.set(self.seen.get().wrapping_sub(1));
    }

    /// Starts another generation, and lets go of everything that was only kept for the last one.
    #[cold]
    fn flush(&self, now: u64) -> u64 {
        self.forget();
        self.seen.set(now);
        self.current.set(now);
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        // Giving memory back is anybody's code, and must find the cache as it is from here on.
        let kept = self.kept.take();
        drop(kept);
        generation
    }

    fn forget(&self) {
        for line in self.lines.iter().chain(&self.recent) {
            line.set(Line::EMPTY);
        }
    }
}

// SAFETY: a piece comes from a line that contains the address and was checked to lie inside its
// memory. That memory is kept until `generation` returns another number, and no line that leads to
// it longer than that.
unsafe impl<L: Lookup> Memory for DeviceTlb<L> {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        let now = self.lookup.generation();
        let line = self.line(addr).get();
        if now == self.seen.get()
            && let Some(piece) = line.piece(addr, len, access)
        {
            return Ok(piece);
        }
        self.miss(now, addr, len, access)
    }

    #[inline(always)]
    fn contiguous(&self, addr: DmaAddr, len: u32, access: Access) -> Option<NonNull<u8>> {
        let line = self.line(addr).get();
        let inside = addr.0.wrapping_sub(line.first.0);
        // The last byte lies inside, too.
        let fits = inside <= line.rest && u64::from(len).wrapping_sub(1) <= line.rest - inside;
        if fits && line.permits(access) && self.lookup.generation() == self.seen.get() {
            // SAFETY: as in `Line::piece`.
            return Some(unsafe { line.ptr.add(inside as usize) });
        }
        self.contiguous_elsewhere(addr, len, access)
    }

    #[inline]
    fn generation(&self) -> u64 {
        let now = self.lookup.generation();
        if now == self.current.get() {
            return self.generation.get();
        }
        self.flush(now)
    }

    #[inline]
    fn is_bytewise(&self) -> bool {
        true
    }
}

impl Line {
    /// No mapping: nothing is permitted.
    const EMPTY: Self = Self {
        first: DmaAddr(0),
        rest: 0,
        ptr: NonNull::dangling(),
        readable: false,
        writable: false,
    };

    /// Checks that a mapping lies inside its memory.
    fn new(mapped: &Mapped) -> Option<Self> {
        // One less than the length, which may be one more than the largest number.
        let rest = mapped.last.0.checked_sub(mapped.first.0)?;
        let end = mapped.offset.checked_add(rest)?;
        if end >= mapped.memory.len() {
            return None;
        }
        let offset = usize::try_from(mapped.offset).ok()?;
        Some(Self {
            first: mapped.first,
            rest,
            // SAFETY: the mapping lies inside the memory, from there on.
            ptr: unsafe { mapped.memory.ptr().add(offset) },
            readable: mapped.readable,
            writable: mapped.writable,
        })
    }

    #[inline]
    fn contains(&self, addr: DmaAddr) -> bool {
        addr.0.wrapping_sub(self.first.0) <= self.rest
    }

    #[inline]
    fn permits(&self, access: Access) -> bool {
        match access {
            Access::Read => self.readable,
            Access::Write => self.writable,
        }
    }

    /// As much of `len` bytes at `addr` as the mapping has, if it has the first and permits the
    /// access.
    #[inline]
    fn piece(&self, addr: DmaAddr, len: u32, access: Access) -> Option<Piece> {
        if !self.contains(addr) || !self.permits(access) {
            return None;
        }
        let inside = addr.0.wrapping_sub(self.first.0);
        let behind = self.rest - inside;
        // SAFETY: no empty line permits anything; so the mapping lies inside the memory, and the
        // address in the mapping. An offset into memory is one of the processor.
        let ptr = unsafe { self.ptr.add(inside as usize) };
        let len = if u64::from(len) <= behind {
            len
        } else {
            // One more than what is behind, which is less than the length asked for.
            u32::try_from(behind + 1).map_or(len, |left| left.min(len))
        };
        Some(Piece { addr, ptr, len })
    }
}

impl<L> fmt::Debug for DeviceTlb<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTlb")
            .field("generation", &self.generation)
            .field("kept", &self.kept.borrow().len())
            .finish_non_exhaustive()
    }
}
