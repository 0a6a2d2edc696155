//! The partitions of a disk: those of an MBR with its chain of logical ones, or those of a GPT.
//!
//! A GPT is read by `hadris-part`, which checks both copies with their checksums and bounds their sizes. The MBR is
//! read here: `hadris-part` refuses a chain of logical partitions whose records are not in the order of the disk, as
//! `fdisk` leaves it when a partition has been deleted and made again.
//!
//! Sources: UEFI 2.10, 5; Linux, `block/partitions/msdos.c` for what is tolerated.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use hadris_io::ErrorKind;
use hadris_part::MbrType;
use hadris_part::async_::scan;
use hadris_storage::BlockIndex;
use hadris_storage::async_::{BlockDevice, ReadAhead};

use crate::volume::VolumeError;

/// The most partitions that are looked at.
const MOST: usize = 128;

/// The number of the first logical partition of an MBR.
const FIRST_LOGICAL: usize = 5;

/// A partition that lies on the disk, at least with its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, as Linux counts: from 1 on, logical ones from 5 on.
    pub number: usize,
    /// Its first block.
    pub first: u64,
    /// How many blocks it has, up to the end of the disk.
    pub blocks: u64,
}

/// An entry of an MBR or of an extended boot record.
#[derive(Clone, Copy)]
struct MbrEntry {
    kind: MbrType,
    start: u64,
    blocks: u64,
}

struct Table {
    /// Blocks of the disk.
    blocks: u64,
    partitions: Vec<Partition>,
}

/// The partitions of a disk in the order of their table; none, if there is no table.
///
/// # Errors
/// [`VolumeError::PartitionTable`], if it is a GPT of which neither copy is whole; [`VolumeError::Disk`];
/// [`VolumeError::Unsupported`], if the blocks are too large.
pub async fn partitions<D: BlockDevice>(device: &mut D) -> Result<Vec<Partition>, VolumeError> {
    const BLOCK_BYTES: usize = 4096;
    const READ_AHEAD_BYTES: usize = 32 * 1024;
    let size = usize::try_from(device.block_size().get()).unwrap_or(usize::MAX);
    if size > BLOCK_BYTES {
        return Err(VolumeError::Unsupported);
    }
    let mut table = Table {
        blocks: device.block_count(),
        partitions: Vec::new(),
    };
    // Tables are read block by block.
    let device = &mut ReadAhead::new(device, READ_AHEAD_BYTES / size);
    let mut block = vec![0; size];
    let Some(entries) = record(device, 0, &mut block).await? else {
        return Ok(table.partitions);
    };
    if entries.iter().any(|entry| entry.kind.is_protective()) {
        let scanned = scan(device, |partition| {
            table.add(partition.slot() + 1, partition.start(), partition.len())
        });
        scanned.await.map_err(|error| match error.kind() {
            ErrorKind::Io => VolumeError::Disk,
            _ => VolumeError::PartitionTable,
        })?;
        return Ok(table.partitions);
    }
    for (slot, entry) in entries.iter().enumerate() {
        if !entry.kind.is_extended() {
            // Four entries are below the limit.
            let _ = table.add(slot + 1, entry.start, entry.blocks);
        }
    }
    for extended in entries.iter().filter(|entry| entry.kind.is_extended()) {
        table.add_logical(device, extended, &mut block).await?;
    }
    Ok(table.partitions)
}

impl Table {
    fn add(&mut self, number: usize, first: u64, blocks: u64) -> ControlFlow<()> {
        let blocks = blocks.min(self.blocks.saturating_sub(first));
        // Block 0 holds the table.
        if first > 0 && blocks > 0 {
            self.partitions.push(Partition {
                number,
                first,
                blocks,
            });
        }
        if self.partitions.len() < MOST {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// Follows the chain of records in an extended partition, each with a logical partition and a link to the
    /// next record. It ends where it leaves the partition or comes back to a record.
    async fn add_logical<D: BlockDevice>(
        &mut self,
        device: &mut D,
        extended: &MbrEntry,
        block: &mut [u8],
    ) -> Result<(), VolumeError> {
        let end = extended.start.saturating_add(extended.blocks);
        let mut records = Vec::new();
        let mut next = extended.start;
        while next > 0 && next < end && records.len() < MOST && !records.contains(&next) {
            records.push(next);
            let Some(entries) = record(device, next, block).await? else {
                return Ok(());
            };
            let is_data = |entry: &&MbrEntry| entry.blocks > 0 && !entry.kind.is_extended();
            if let Some(data) = entries.iter().find(is_data) {
                let logical = |partition: &&Partition| partition.number >= FIRST_LOGICAL;
                let number = FIRST_LOGICAL + self.partitions.iter().filter(logical).count();
                if self.add(number, next + data.start, data.blocks).is_break() {
                    return Ok(());
                }
            }
            let link = entries.iter().find(|entry| entry.kind.is_extended());
            let Some(link) = link else {
                return Ok(());
            };
            next = extended.start + link.start;
        }
        Ok(())
    }
}

/// The entries of the record in a block; `None`, if there is no such block, or no record in it.
async fn record<D: BlockDevice>(
    device: &mut D,
    index: u64,
    block: &mut [u8],
) -> Result<Option<[MbrEntry; 4]>, VolumeError> {
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
    let number = |at: usize| {
        let bytes = table
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        u64::from(u32::from_le_bytes(bytes.unwrap_or_default()))
    };
    Ok(Some([0, 1, 2, 3].map(|slot| {
        let at = slot * ENTRY;
        let kind = table.get(at + 4).copied().unwrap_or_default();
        let blocks = number(at + 12);
        MbrEntry {
            // What has no blocks is not there, and is no extended partition either.
            kind: MbrType::new(if blocks == 0 { 0 } else { kind }),
            start: number(at + 8),
            blocks: if kind == 0 { 0 } else { blocks },
        }
    })))
}
