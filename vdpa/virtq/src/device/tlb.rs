//! The translation cache of one queue: what PCI calls a device TLB, in front of an IOTLB that many share.
//!
//! An access that hits takes no lock. Not the IOTLB: where addresses lead is found by a [`Lookup`], which is
//! safe code. What it returns is checked, and memory stays alive as long as a queue may use it, so that no
//! lookup can lead a queue astray.
//!
//! Source: PCI Express 6.0, section 10 (Address Translation Services), for the vocabulary.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::mem;

use super::memory::{Access, Fault, Memory, Piece};
use crate::{DmaAddr, SharedMemory};

/// How many translations are kept, and how many of those that gave way may still be in use before all
/// are dropped.
const ENTRIES: usize = 64;

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
    pub memory: SharedMemory,
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
    /// [`Fault::NoMapping`] or [`Fault::Permission`], if the address cannot be accessed in this way.
    fn lookup(&self, addr: DmaAddr, access: Access) -> Result<Mapped, Fault>;

    /// A number that grows whenever a mapping is changed or withdrawn: after the change, and before whoever
    /// made it is told that it holds.
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
/// A withdrawn mapping is no longer translated as soon as the lookup's generation has grown. Its memory is kept
/// until the queue looks at the generation, which it does in each operation and in
/// [`DeviceQueue::refresh`](super::DeviceQueue::refresh).
pub struct DeviceTlb<L> {
    lookup: L,
    cache: RefCell<Cache>,
}

struct Cache {
    /// What [`Memory::generation`] returns.
    generation: u64,
    /// The lookup's generation that the entries are from.
    seen: u64,
    /// Whether a piece may be out that is from an earlier one.
    outdated: bool,
    /// At most [`ENTRIES`].
    entries: Vec<Entry>,
    /// The entry that was used last.
    last: usize,
    /// The entry that gives way next.
    oldest: usize,
    /// Memory that no entry leads to any more and of which a piece may be out, by its id.
    retired: BTreeMap<usize, SharedMemory>,
}

/// A mapping that has been checked: `first` to `last` lie inside the memory, from `offset` on.
struct Entry(Mapped);

impl<L: Lookup> DeviceTlb<L> {
    /// An empty cache before a lookup.
    pub fn new(lookup: L) -> Self {
        let cache = Cache {
            generation: 0,
            seen: lookup.generation(),
            outdated: false,
            entries: Vec::with_capacity(ENTRIES),
            last: 0,
            oldest: 0,
            retired: BTreeMap::new(),
        };
        Self {
            lookup,
            cache: RefCell::new(cache),
        }
    }

    /// Finds and keeps the mapping around `addr`.
    #[cold]
    fn miss(&self, now: u64, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        // Not with the cache borrowed: the lookup is anybody's code.
        let mapped = self.lookup.lookup(addr, access)?;
        let entry = Entry::new(mapped).ok_or(Fault::NoMapping)?;
        if !entry.contains(addr) {
            return Err(Fault::NoMapping);
        }
        if !entry.permits(access) {
            return Err(Fault::Permission);
        }
        let piece = entry.piece(addr, len);
        let mut cache = self.cache.borrow_mut();
        cache.follow(now);
        cache.insert(entry);
        Ok(piece)
    }
}

// SAFETY: a piece comes from an entry that contains the address and was checked to lie inside its memory. That
// memory is held by the entry, or among the retired ones, until `generation` returns another number.
unsafe impl<L: Lookup> Memory for DeviceTlb<L> {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        let now = self.lookup.generation();
        let hit = self.cache.borrow_mut().find(now, addr, len, access);
        match hit {
            Some(piece) => Ok(piece),
            None => self.miss(now, addr, len, access),
        }
    }

    #[inline]
    fn generation(&self) -> u64 {
        let now = self.lookup.generation();
        let mut cache = self.cache.borrow_mut();
        if cache.is_current(now) {
            return cache.generation;
        }
        let (generation, dropped) = cache.flush(now);
        // Giving memory back is anybody's code.
        drop(cache);
        drop(dropped);
        generation
    }
}

impl Cache {
    /// What is known of `addr`, if the lookup's generation is still that of the entries.
    #[inline]
    fn find(&mut self, now: u64, addr: DmaAddr, len: u32, access: Access) -> Option<Piece> {
        if now != self.seen {
            return None;
        }
        let fits = |entry: &&Entry| entry.contains(addr) && entry.permits(access);
        if let Some(entry) = self.entries.get(self.last).filter(fits) {
            return Some(entry.piece(addr, len));
        }
        self.last = self.entries.iter().position(|entry| fits(&entry))?;
        Some(self.entries[self.last].piece(addr, len))
    }

    /// Uses no entry any more that is from an earlier generation. Pieces of them may be out.
    fn follow(&mut self, now: u64) {
        if now == self.seen {
            return;
        }
        self.seen = now;
        self.outdated = true;
        while let Some(entry) = self.entries.pop() {
            self.retire(entry);
        }
        self.oldest = 0;
    }

    fn insert(&mut self, entry: Entry) {
        if self.entries.len() < ENTRIES {
            self.last = self.entries.len();
            self.entries.push(entry);
            return;
        }
        self.last = self.oldest;
        self.oldest = (self.oldest + 1) % ENTRIES;
        let old = mem::replace(&mut self.entries[self.last], entry);
        self.retire(old);
    }

    fn retire(&mut self, Entry(mapped): Entry) {
        self.retired.insert(mapped.memory.id(), mapped.memory);
    }

    /// Whether every piece that is out may stay.
    #[inline]
    fn is_current(&self, now: u64) -> bool {
        now == self.seen && !self.outdated && self.retired.len() <= ENTRIES
    }

    /// Starts another generation, and gives away everything that was only kept for the last one.
    #[cold]
    fn flush(&mut self, now: u64) -> (u64, BTreeMap<usize, SharedMemory>) {
        self.follow(now);
        self.outdated = false;
        self.generation = self.generation.wrapping_add(1);
        (self.generation, mem::take(&mut self.retired))
    }
}

impl Entry {
    /// Checks that a mapping lies inside its memory.
    fn new(mapped: Mapped) -> Option<Self> {
        // One less than the length, which may be one more than the largest number.
        let rest = mapped.last.0.checked_sub(mapped.first.0)?;
        let end = mapped.offset.checked_add(rest)?;
        (end < mapped.memory.len()).then_some(Self(mapped))
    }

    #[inline]
    fn contains(&self, addr: DmaAddr) -> bool {
        self.0.first <= addr && addr <= self.0.last
    }

    #[inline]
    fn permits(&self, access: Access) -> bool {
        match access {
            Access::Read => self.0.readable,
            Access::Write => self.0.writable,
        }
    }

    /// As much of `len` bytes at `addr` as the mapping has.
    #[inline]
    fn piece(&self, addr: DmaAddr, len: u32) -> Piece {
        let inside = addr.0.wrapping_sub(self.0.first.0);
        let rest = self.0.last.0.wrapping_sub(addr.0);
        // Below the length of an allocation, like the whole mapping.
        let offset = (self.0.offset + inside) as usize;
        // SAFETY: the address lies in the mapping, and that lies inside the memory.
        let ptr = unsafe { self.0.memory.ptr().add(offset) };
        let len = u32::try_from(rest).map_or(len, |rest| len.min(rest.saturating_add(1)));
        Piece { addr, ptr, len }
    }
}

impl<L> fmt::Debug for DeviceTlb<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.cache.borrow();
        f.debug_struct("DeviceTlb")
            .field("generation", &cache.generation)
            .field("entries", &cache.entries.len())
            .field("retired", &cache.retired.len())
            .finish_non_exhaustive()
    }
}
