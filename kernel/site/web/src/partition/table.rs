//! What the tables have in common: partitions that lie on the disk and beside each other.

use alloc::vec::Vec;

/// The most partitions that are looked at.
pub(super) const MOST: usize = 128;

/// A partition that lies on the disk, at least with its beginning, and shares no block with one
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, as Linux counts: from 1 on, logical ones from 5 on.
    pub number: usize,
    /// Its first block.
    pub first: u64,
    /// How many blocks it has, up to the end of the disk.
    pub blocks: u64,
}

/// The partitions of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In the order of the table.
    pub partitions: Vec<Partition>,
    /// How many entries were left out, because they begin outside the disk, or overlap one before
    /// them.
    pub skipped: usize,
    /// Blocks of the disk.
    pub(super) blocks: u64,
}

impl Table {
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            partitions: Vec::new(),
            skipped: 0,
            blocks,
        }
    }

    /// Whether no further entry is looked at.
    pub(super) fn is_full(&self) -> bool {
        self.partitions.len() + self.skipped >= MOST
    }

    /// Adds what an entry says, or counts the entry.
    pub(super) fn add(&mut self, number: usize, first: u64, blocks: u64) {
        let blocks = blocks.min(self.blocks.saturating_sub(first));
        let end = first + blocks;
        let overlaps = |other: &Partition| first < other.first + other.blocks && other.first < end;
        // Block 0 holds the MBR.
        if first == 0 || blocks == 0 || self.partitions.iter().any(overlaps) {
            self.skipped += 1;
        } else {
            self.partitions.push(Partition {
                number,
                first,
                blocks,
            });
        }
    }
}

/// The little-endian number of `length` bytes, at most eight, at `at`.
pub(super) fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    let digits = bytes.iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}
