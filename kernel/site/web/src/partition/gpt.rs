//! The GUID partition table, with a copy of it at the end of the disk (UEFI 2.10, 5.3).

use alloc::vec::Vec;

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use hadris_storage::BlockIndex;
use hadris_storage::async_::BlockDevice;

use super::table::{MOST, Table, number};
use crate::volume::VolumeError;

/// The block of the primary header.
const PRIMARY: u64 = 1;
/// The shortest header, and what all of them have in common (UEFI 2.10, table 5.5).
const HEADER_BYTES: u64 = 92;
/// The largest array of entries that is read, in bytes. Nearly all have 16 KiB.
const ENTRIES_BYTES_MAX: u64 = 1 << 20;
/// The sizes of an entry: powers of two (UEFI 2.10, table 5.5).
const ENTRY_BYTES: core::ops::RangeInclusive<u64> = 128..=4096;

/// Slow, and small: tables are read once.
static CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// A header that is as its checksum says, and possible on its disk.
struct Header {
    /// The block of the other header.
    alternate: u64,
    /// The first block of the entries.
    entries: u64,
    count: u64,
    entry_bytes: u64,
    entries_crc: u32,
}

/// An entry that is in use.
struct Entry {
    number: usize,
    first: u64,
    blocks: u64,
}

/// Adds the partitions of the primary table, or of its copy, if it is damaged.
pub(super) async fn add<D: BlockDevice>(
    table: &mut Table,
    device: &mut D,
    block: &mut [u8],
) -> Result<(), VolumeError> {
    let mut place = PRIMARY;
    for _copy in 0..2 {
        // A disk that has grown since has its copy not in the last block, but where the header
        // says.
        let mut alternate = table.blocks.saturating_sub(1);
        if let Some(entries) = entries(device, place, &mut alternate, block).await? {
            for entry in entries {
                table.add(entry.number, entry.first, entry.blocks);
            }
            return Ok(());
        }
        place = alternate;
    }
    Err(VolumeError::PartitionTable)
}

/// The entries in use of the table whose header is in the block `place`, the first [`MOST`] of
/// them; `None`, if it is damaged. `alternate` becomes the place of the other header, if this one
/// knows.
async fn entries<D: BlockDevice>(
    device: &mut D,
    place: u64,
    alternate: &mut u64,
    block: &mut [u8],
) -> Result<Option<Vec<Entry>>, VolumeError> {
    let disk_blocks = device.block_count();
    if place >= disk_blocks {
        return Ok(None);
    }
    device.read_blocks(BlockIndex::new(place), block).await?;
    let Some(header) = Header::parse(block, place, disk_blocks) else {
        return Ok(None);
    };
    *alternate = header.alternate;
    let block_bytes = block.len() as u64;
    let mut digest = CRC.digest();
    let mut entries = Vec::new();
    let (mut index, mut left) = (header.entries, header.entries_bytes());
    let mut slot = 0;
    // Where the next entry begins in the block. An entry fills blocks, or a block is full of
    // entries.
    let mut at = 0;
    while left > 0 {
        device.read_blocks(BlockIndex::new(index), block).await?;
        let length = left.min(block_bytes);
        let bytes = block.get(..usize::try_from(length).unwrap_or(usize::MAX));
        let bytes = bytes.unwrap_or_default();
        digest.update(bytes);
        while at < length {
            let entry = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
            slot += 1;
            at += header.entry_bytes;
            if entries.len() < MOST {
                entries.extend(entry.and_then(|entry| Entry::parse(slot, entry)));
            }
        }
        at -= length;
        left -= length;
        index += 1;
    }
    let whole = digest.finalize() == header.entries_crc;
    Ok(whole.then_some(entries))
}

impl Header {
    /// The header in the block `place`, if it is a header and possible there.
    fn parse(block: &[u8], place: u64, disk_blocks: u64) -> Option<Self> {
        let size = number(block, 12, 4);
        let bytes = block.get(..usize::try_from(size).ok()?)?;
        if size < HEADER_BYTES || !bytes.starts_with(b"EFI PART") {
            return None;
        }
        let mut digest = CRC.digest();
        digest.update(&bytes[..16]);
        // Its own field counts as 0.
        digest.update(&[0; 4]);
        digest.update(&bytes[20..]);
        let header = Self {
            alternate: number(bytes, 32, 8),
            entries: number(bytes, 72, 8),
            count: number(bytes, 80, 4),
            entry_bytes: number(bytes, 84, 4),
            entries_crc: checksum(bytes, 88),
        };
        let possible = digest.finalize() == checksum(bytes, 16)
            && number(bytes, 24, 8) == place
            && header.entry_bytes.is_power_of_two()
            && ENTRY_BYTES.contains(&header.entry_bytes)
            && (1..=ENTRIES_BYTES_MAX).contains(&header.entries_bytes())
            && header.entries > PRIMARY
            && header.end(block.len() as u64)? <= disk_blocks;
        possible.then_some(header)
    }

    fn entries_bytes(&self) -> u64 {
        self.count * self.entry_bytes
    }

    /// The block behind the entries.
    fn end(&self, block_bytes: u64) -> Option<u64> {
        let blocks = self.entries_bytes().div_ceil(block_bytes);
        self.entries.checked_add(blocks)
    }
}

impl Entry {
    /// An entry, unless its type says that it is not in use (UEFI 2.10, table 5.6).
    fn parse(number_in_table: usize, entry: &[u8]) -> Option<Self> {
        if entry.get(..16)?.iter().all(|byte| *byte == 0) {
            return None;
        }
        let (first, last) = (number(entry, 32, 8), number(entry, 40, 8));
        let blocks = last.checked_sub(first).map(|more| more.saturating_add(1));
        Some(Self {
            number: number_in_table,
            first,
            blocks: blocks.unwrap_or(0),
        })
    }
}

fn checksum(bytes: &[u8], at: usize) -> u32 {
    // Four bytes.
    u32::try_from(number(bytes, at, 4)).unwrap_or_default()
}
