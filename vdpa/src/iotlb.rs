//! The IOTLB: what an address space of a device maps where, and with which permission.
//!
//! A table from ranges of I/O virtual addresses to [`Target`]s. It is the bookkeeping alone: it
//! knows no device, takes no lock and reaches no memory. Every address up to `u64::MAX` can be
//! mapped, and a look-up neither allocates nor takes longer than the depth of a tree.
//!
//! Source: the role of Linux' `vhost_iotlb` (`drivers/vhost/iotlb.c`), with overlaps refused
//! instead of stacked, and ranges cut instead of dropped whole.

mod overlaps;
mod pieces;
mod range;

use alloc::collections::{BTreeMap, btree_map};

use bitflags::bitflags;
use virtq::DmaAddr;

pub use self::overlaps::Overlaps;
pub use self::pieces::{Piece, Pieces};
pub use self::range::{IovaRange, RangeError};

bitflags! {
    /// What a device may do with mapped memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Permission: u8 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
    }
}

/// What a range is mapped to: a place in something that goes on as the addresses do.
pub trait Target: Clone {
    /// The place `by` bytes further on.
    #[must_use]
    fn advance(&self, by: u64) -> Self;
}

impl Target for DmaAddr {
    fn advance(&self, by: u64) -> Self {
        Self(self.0.wrapping_add(by))
    }
}

/// How many mappings a table holds, and what happens when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// As many as there is memory for.
    Unlimited,
    /// So many; another one is an error.
    Refuse(usize),
}

/// Why a range cannot be mapped. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Part of the range is mapped already.
    #[error("the range overlaps one that is mapped")]
    Overlap,
    /// The mapping would permit nothing.
    #[error("a mapping that permits nothing")]
    NoPermission,
    /// The table is full.
    #[error(transparent)]
    Full(#[from] Full),
}

/// The table holds as many mappings as it may. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of mappings is full")]
pub struct Full;

/// Why an address cannot be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing is mapped at the address.
    #[error("nothing is mapped at {0:#x}")]
    NoMapping(u64),
    /// The mapping at the address does not permit the access.
    #[error("the mapping at {0:#x} does not permit this access")]
    Permission(u64),
}

/// One mapping of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a, T> {
    /// The addresses that are mapped.
    pub range: IovaRange,
    /// What the device may do there.
    pub permission: Permission,
    /// Where the first address leads.
    pub target: &'a T,
}

/// The mappings of one address space.
///
/// Adjacent mappings stay apart; [`pieces`](Self::pieces) walks over them.
#[derive(Clone, Debug)]
pub struct Iotlb<T> {
    /// By their first address; they never overlap.
    entries: BTreeMap<u64, Entry<T>>,
    capacity: Capacity,
    generation: u64,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    last: u64,
    permission: Permission,
    target: T,
}

impl<T: Target> Iotlb<T> {
    /// An empty table.
    #[must_use]
    pub const fn new(capacity: Capacity) -> Self {
        Self {
            entries: BTreeMap::new(),
            capacity,
            generation: 0,
        }
    }

    /// How many mappings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A number that grows with every change.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Maps a range: its first address leads to `target`.
    ///
    /// # Errors
    /// [`MapError`]: nothing has changed.
    pub fn map(
        &mut self,
        range: IovaRange,
        permission: Permission,
        target: T,
    ) -> Result<(), MapError> {
        if permission.is_empty() {
            return Err(MapError::NoPermission);
        }
        // Mappings do not overlap, so the last that starts in or before the range reaches furthest.
        if let Some((_, entry)) = self.at_or_before(range.last())
            && entry.last >= range.first()
        {
            return Err(MapError::Overlap);
        }
        self.check_room()?;
        self.generation += 1;
        let entry = Entry {
            last: range.last(),
            permission,
            target,
        };
        self.entries.insert(range.first(), entry);
        Ok(())
    }

    /// Takes a range away, and returns how many of its bytes were mapped. A mapping that reaches
    /// beyond the range keeps the rest, with its target moved on.
    ///
    /// # Errors
    /// [`Full`], if both ends of a mapping would be kept and there is no room for another one.
    pub fn unmap(&mut self, range: IovaRange) -> Result<u128, Full> {
        if self.take_whole(range) {
            return Ok(range.len());
        }
        let before = self
            .at_or_before(range.first())
            .filter(|(first, entry)| *first < range.first() && entry.last >= range.first())
            .map(|(first, entry)| (first, entry.last));
        if let Some((first, last)) = before
            && last > range.last()
        {
            self.punch(first, range)?;
            return Ok(range.len());
        }
        let mut bytes = 0;
        if let Some((first, last)) = before {
            if let Some(entry) = self.entries.get_mut(&first) {
                entry.last = range.first() - 1;
            }
            bytes += u128::from(last - range.first()) + 1;
        }
        let mut rest = None;
        let within = range.first()..=range.last();
        for (first, entry) in self.entries.extract_if(within, |_, _| true) {
            bytes += u128::from(entry.last.min(range.last()) - first) + 1;
            if entry.last > range.last() {
                rest = Some(entry.tail(first, range.last() + 1));
            }
        }
        if let Some(rest) = rest {
            self.entries.insert(range.last() + 1, rest);
        }
        if bytes > 0 {
            self.generation += 1;
        }
        Ok(bytes)
    }

    /// Takes everything away.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.generation += 1;
        }
        self.entries.clear();
    }

    /// The mapping that an access to one address goes through.
    ///
    /// # Errors
    /// [`Fault`], if there is none, or if it does not permit all of `permission`.
    pub fn translate(&self, addr: u64, permission: Permission) -> Result<Mapping<'_, T>, Fault> {
        let (first, entry) = self
            .at_or_before(addr)
            .filter(|(_, entry)| entry.last >= addr)
            .ok_or(Fault::NoMapping(addr))?;
        if entry.permission.contains(permission) {
            Ok(entry.mapping(first))
        } else {
            Err(Fault::Permission(addr))
        }
    }

    /// Where an access to a range leads, one mapping after the other. A hole or a missing
    /// permission is told at its place, and ends the walk.
    #[must_use]
    pub fn pieces(&self, range: IovaRange, permission: Permission) -> Pieces<'_, T> {
        Pieces::new(self, range, permission)
    }

    /// The mappings that a range touches, in the order of their addresses; the first and the last
    /// may reach beyond it.
    #[must_use]
    pub fn overlaps(&self, range: IovaRange) -> Overlaps<'_, T> {
        Overlaps::new(&self.entries, range)
    }

    /// All mappings, in the order of their addresses.
    #[must_use]
    pub fn iter(&self) -> Overlaps<'_, T> {
        self.overlaps(IovaRange::ALL)
    }

    /// The last mapping that starts at or before an address.
    fn at_or_before(&self, addr: u64) -> Option<(u64, &Entry<T>)> {
        self.entries
            .range(..=addr)
            .next_back()
            .map(|(first, entry)| (*first, entry))
    }

    /// Takes a range away if it is that of one mapping, which is what is mostly unmapped.
    fn take_whole(&mut self, range: IovaRange) -> bool {
        let btree_map::Entry::Occupied(entry) = self.entries.entry(range.first()) else {
            return false;
        };
        if entry.get().last != range.last() {
            return false;
        }
        entry.remove();
        self.generation += 1;
        true
    }

    /// Takes a range away from the middle of the mapping that starts at `first`.
    fn punch(&mut self, first: u64, hole: IovaRange) -> Result<(), Full> {
        self.check_room()?;
        self.generation += 1;
        let Some(entry) = self.entries.get_mut(&first) else {
            return Ok(());
        };
        let tail = entry.tail(first, hole.last() + 1);
        entry.last = hole.first() - 1;
        self.entries.insert(hole.last() + 1, tail);
        Ok(())
    }

    /// Whether one more mapping can be held.
    fn check_room(&self) -> Result<(), Full> {
        match self.capacity {
            Capacity::Refuse(limit) if self.entries.len() >= limit => Err(Full),
            _ => Ok(()),
        }
    }
}

impl<T: Target> Entry<T> {
    /// What is left of a mapping that starts at `first`, from `from` on.
    fn tail(&self, first: u64, from: u64) -> Self {
        Self {
            target: self.target.advance(from - first),
            ..*self
        }
    }

    fn mapping(&self, first: u64) -> Mapping<'_, T> {
        Mapping {
            range: IovaRange::ordered(first, self.last),
            permission: self.permission,
            target: &self.target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::from_bounds(first, last).unwrap()
    }

    #[test]
    fn a_mapping_is_found_at_each_of_its_ends_and_not_beyond() {
        let mut table = Iotlb::new(Capacity::Unlimited);
        table
            .map(range(0x1000, 0x1fff), Permission::READ, DmaAddr(0x9000))
            .unwrap();
        let at = |addr| table.translate(addr, Permission::READ).map(|m| *m.target);
        assert_eq!(at(0x1000), Ok(DmaAddr(0x9000)));
        assert_eq!(at(0x1fff), Ok(DmaAddr(0x9000)));
        assert_eq!(at(0xfff), Err(Fault::NoMapping(0xfff)));
        assert_eq!(at(0x2000), Err(Fault::NoMapping(0x2000)));
    }
}
