//! The MBR, and the chain of records in its extended partitions (UEFI 2.10, 5.2).

use alloc::vec::Vec;

use hadris_storage::BlockIndex;
use hadris_storage::async_::BlockDevice;

use super::table::{MOST, Table, number};
use crate::volume::VolumeError;

/// The number of the first logical partition.
const FIRST_LOGICAL: usize = 5;

/// An entry of an MBR or of an extended boot record.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The type; 0, if the entry is empty.
    kind: u8,
    start: u64,
    blocks: u64,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.kind == 0
    }

    /// Whether it says that there is a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.kind == 0xee
    }

    /// Whether it has logical partitions: that of DOS, of Windows 95, of Linux.
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn is_data(&self) -> bool {
        !self.is_empty() && !self.is_extended()
    }
}

/// Adds the partitions of the MBR with these entries.
pub(super) async fn add<D: BlockDevice>(
    table: &mut Table,
    device: &mut D,
    entries: &[Entry; 4],
    block: &mut [u8],
) -> Result<(), VolumeError> {
    for (slot, entry) in entries.iter().enumerate() {
        if entry.is_data() {
            table.add(slot + 1, entry.start, entry.blocks);
        }
    }
    let mut next_number = FIRST_LOGICAL;
    for extended in entries.iter().filter(|entry| entry.is_extended()) {
        add_logical(table, device, extended, &mut next_number, block).await?;
    }
    Ok(())
}

/// Follows the chain of records in an extended partition, each with a logical partition and a link
/// to the next record, which need not be in the order of the disk. It ends where it leaves the
/// partition or comes back to a record.
async fn add_logical<D: BlockDevice>(
    table: &mut Table,
    device: &mut D,
    extended: &Entry,
    next_number: &mut usize,
    block: &mut [u8],
) -> Result<(), VolumeError> {
    let end = extended.start.saturating_add(extended.blocks);
    let mut records = Vec::new();
    let mut next = extended.start;
    while next > 0
        && next < end
        && records.len() < MOST
        && !table.is_full()
        && !records.contains(&next)
    {
        records.push(next);
        let Some(entries) = record(device, next, block).await? else {
            return Ok(());
        };
        if let Some(data) = entries.iter().find(|entry| entry.is_data()) {
            table.add(*next_number, next + data.start, data.blocks);
            *next_number += 1;
        }
        let link = entries.iter().find(|entry| entry.is_extended());
        let Some(link) = link else {
            return Ok(());
        };
        next = extended.start + link.start;
    }
    Ok(())
}

/// The entries of the record in a block; `None`, if there is no such block, or no record in it.
pub(super) async fn record<D: BlockDevice>(
    device: &mut D,
    index: u64,
    block: &mut [u8],
) -> Result<Option<[Entry; 4]>, VolumeError> {
    const ENTRIES: usize = 446;
    const ENTRY: usize = 16;
    const ACTIVE: u8 = 0x80;
    if index >= device.block_count() {
        return Ok(None);
    }
    device.read_blocks(BlockIndex::new(index), block).await?;
    let (Some(table), Some([0x55, 0xaa])) = (block.get(ENTRIES..510), block.get(510..512)) else {
        return Ok(None);
    };
    // A boot sector has code there, which is told by the flag that is neither set nor clear.
    if table
        .chunks_exact(ENTRY)
        .any(|entry| entry[0] & !ACTIVE != 0)
    {
        return Ok(None);
    }
    Ok(Some([0, 1, 2, 3].map(|slot| {
        let at = slot * ENTRY;
        let blocks = number(table, at + 12, 4);
        Entry {
            // What has no blocks is not there.
            kind: if blocks == 0 { 0 } else { table[at + 4] },
            start: number(table, at + 8, 4),
            blocks,
        }
    })))
}
