//! Walking over the mappings that a range touches.

use alloc::collections::{BTreeMap, btree_map};

use super::{Entry, IovaRange, Mapping, Target};

/// The mappings that a range touches, in the order of their addresses.
#[derive(Clone, Debug)]
pub struct Overlaps<'a, T> {
    entries: btree_map::Range<'a, u64, Entry<T>>,
}

impl<'a, T: Target> Overlaps<'a, T> {
    pub(super) fn new(entries: &'a BTreeMap<u64, Entry<T>>, range: IovaRange) -> Self {
        // Of those that start before the range only the last can reach into it.
        let first = entries
            .range(..=range.first())
            .next_back()
            .filter(|(_, entry)| entry.last >= range.first())
            .map_or(range.first(), |(first, _)| *first);
        Self {
            entries: entries.range(first..=range.last()),
        }
    }
}

impl<'a, T: Target> Iterator for Overlaps<'a, T> {
    type Item = Mapping<'a, T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries
            .next()
            .map(|(first, entry)| entry.mapping(*first))
    }
}
