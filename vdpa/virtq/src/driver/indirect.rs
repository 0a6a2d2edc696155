//! Indirect tables: one for each chain that a queue can hold, made with the queue.

use alloc::sync::Arc;

use super::memory::RingMemory;
use super::plan::describe;
use super::{Chain, DeviceHold, Segment};
use crate::format::{DESCRIPTOR, F_WRITE};
use crate::{DmaAllocator, DmaError};

/// The tables of a queue.
pub(super) struct IndirectTables {
    memory: RingMemory,
    table_len: u16,
    /// Which descriptor format the tables have.
    format: Format,
}

/// How a table's descriptors follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// By `next` (VIRTIO 1.2, 2.7.5.3).
    Split,
    /// In order, without a flag for it (VIRTIO 1.2, 2.8.7).
    Packed,
}

impl IndirectTables {
    /// One table of `table_len` entries for each of `count` chains.
    pub(super) fn new(
        format: Format,
        count: u16,
        table_len: u16,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        let len = usize::from(count) * usize::from(table_len) * DESCRIPTOR;
        Ok(Self {
            memory: RingMemory::new(dma, len, DESCRIPTOR, hold)?,
            table_len,
            format,
        })
    }

    /// Writes a chain of `segments` segments into table `index`, and names the table.
    #[inline]
    pub(super) fn write<T: Chain>(&self, index: u16, chain: &T, segments: u16) -> Segment {
        assert!(segments <= self.table_len, "the plan has compared them");
        let start = usize::from(index) * usize::from(self.table_len) * DESCRIPTOR;
        let (mut offset, mut next) = (start, 1u16);
        describe(chain, segments, |segment, flags| {
            let rest = match self.format {
                Format::Split => u64::from(flags) << 32 | u64::from(next) << 48,
                Format::Packed => u64::from(flags & F_WRITE) << 48,
            };
            self.memory.store_descriptor(offset, segment, rest);
            offset += DESCRIPTOR;
            next += 1;
        });
        Segment::described(self.memory.addr(start), u32::from(segments) * 16)
    }
}
