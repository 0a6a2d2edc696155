//! An indirect table that a chain keeps for itself (VIRTIO 1.2, 2.7.5.3 and 2.8.7): it is written
//! with the request, and adding the chain takes one descriptor and no second look at its segments.
//! Not the tables that a queue keeps for chains that have none.

use core::mem;

use super::chain::Totals;
use super::memory::Format;
use crate::format::{DESCRIPTOR, F_NEXT, F_WRITE};
use crate::{DmaBuffer, RingFeatures, Segment};

/// How many segments of a table can be replaced: what varies comes soon behind a header.
const REPLACEABLE: usize = 4;

/// The indirect table of one chain, in memory of its own. See
/// [`Chain::table`](crate::Chain::table).
#[derive(Debug)]
pub struct IndirectTable {
    entries: DmaBuffer,
    pub(super) format: Format,
    /// How long the first segments are, which can be replaced.
    lens: [u32; REPLACEABLE],
    /// How many segments the device reads.
    readable: usize,
    /// Whether there are segments, none of them empty or another device's, and no more bytes than a
    /// chain can have.
    pub(super) is_sound: bool,
    pub(super) totals: Totals,
    /// What the ring says of it.
    pub(super) whole: Segment,
}

impl IndirectTable {
    /// The bytes that a table of so many segments needs.
    #[must_use]
    pub const fn len(segments: usize) -> usize {
        segments * DESCRIPTOR
    }

    /// An empty table in `entries`, for queues with these features. `None` if they have no indirect
    /// descriptors.
    #[must_use]
    pub fn new(entries: DmaBuffer, features: RingFeatures) -> Option<Self> {
        features.indirect.then(|| Self {
            format: Format::of(features),
            lens: [0; REPLACEABLE],
            readable: 0,
            is_sound: false,
            totals: Totals::default(),
            whole: Segment::prefix(&entries, 0),
            entries,
        })
    }

    /// Begins to write the table of a chain of `segments` segments. It is one when the writer has
    /// [ended](TableWriter::end).
    pub fn write(&mut self, segments: u32) -> TableWriter<'_> {
        self.totals = Totals::default();
        (self.readable, self.is_sound) = (0, false);
        TableWriter {
            table: self,
            segments,
        }
    }

    /// Puts the first `len` bytes of another buffer in the place of segment number `index`, one of
    /// the first few, which goes the same way. False if the table must be written anew.
    #[inline(always)]
    pub fn replace(&mut self, index: u16, buffer: &DmaBuffer, len: u32) -> bool {
        let (index, totals) = (usize::from(index), &mut self.totals);
        let is_plain = 0 < len && len <= buffer.len && buffer.space == self.entries.space;
        let is_there = index < totals.segments as usize;
        if !self.is_sound || !is_plain || !is_there {
            return false;
        }
        let (entries, _) = self.entries.as_chunks_mut::<DESCRIPTOR>();
        let (Some(old), Some(entry)) = (self.lens.get_mut(index), entries.get_mut(index)) else {
            return false;
        };
        let before = mem::replace(old, len);
        let more = u64::from(len).wrapping_sub(u64::from(before));
        totals.bytes = totals.bytes.wrapping_add(more);
        if index >= self.readable {
            totals.writable = totals.writable.wrapping_add(more);
        }
        self.is_sound = totals.bytes <= u64::from(u32::MAX);
        entry[..8].copy_from_slice(&buffer.addr.0.to_le_bytes());
        entry[8..12].copy_from_slice(&len.to_le_bytes());
        true
    }
}

/// Writes a table: first what the device reads, then what it writes. A table that has too little
/// room for its segments makes a chain that is too long.
#[derive(Debug)]
#[must_use = "the table is no chain's before the end"]
pub struct TableWriter<'a> {
    table: &'a mut IndirectTable,
    segments: u32,
}

impl TableWriter<'_> {
    /// The next segment is one that the device reads.
    pub fn readable(&mut self, segment: Segment) {
        self.put(segment, 0);
        self.table.readable += 1;
    }

    /// The next segment is one that the device writes.
    pub fn writable(&mut self, segment: Segment) {
        self.put(segment, F_WRITE);
        self.table.totals.writable += u64::from(segment.len);
    }

    /// From now on it is the table of these segments.
    pub fn end(self) {
        let table = self.table;
        // An entry has 16 bytes.
        let len = table.totals.segments.saturating_mul(16);
        if len > table.entries.len_u32() {
            table.totals.segments = u32::MAX;
        }
        table.whole = Segment::prefix(&table.entries, len);
        let Totals {
            segments,
            bytes,
            has_empty,
            has_foreign,
            ..
        } = table.totals;
        let is_possible = segments > 0 && bytes <= u64::from(u32::MAX);
        table.is_sound = is_possible && !has_empty && !has_foreign;
    }

    fn put(&mut self, segment: Segment, flags: u16) {
        let table = &mut *self.table;
        let index = table.totals.segments as usize;
        table.totals.look(&segment, table.entries.space());
        let (entries, _) = table.entries.as_chunks_mut::<DESCRIPTOR>();
        let Some(entry) = entries.get_mut(index) else {
            return;
        };
        let next = table.totals.segments;
        let rest = match table.format {
            Format::Packed => u64::from(flags) << 48,
            Format::Split if next < self.segments => {
                u64::from(flags | F_NEXT) << 32 | u64::from(next) << 48
            }
            Format::Split => u64::from(flags) << 32,
        };
        if let Some(len) = table.lens.get_mut(index) {
            *len = segment.len;
        }
        entry[..8].copy_from_slice(&segment.addr.0.to_le_bytes());
        entry[8..].copy_from_slice(&(u64::from(segment.len) | rest).to_le_bytes());
    }
}
