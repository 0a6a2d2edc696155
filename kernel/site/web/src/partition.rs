//! The partitions of a disk: those of an MBR with its chain of logical ones, or those of a GPT.
//!
//! A disk with a GPT has an MBR in its first block that says so: a protective one, or a hybrid one
//! with some of the partitions in it, too, which do not count then. Tables are read block by block
//! and have limits, so that a table made to do harm costs neither memory nor time.
//!
//! Sources: UEFI 2.10, 5; Linux, `block/partitions/{msdos,efi}.c` for what is tolerated.

mod gpt;
mod mbr;
mod table;

use alloc::vec;

use hadris_storage::async_::{BlockDevice, ReadAhead};

pub use table::{Partition, Table};

use crate::volume::VolumeError;

/// The partitions of a disk in the order of their table; none, if there is no table.
///
/// # Errors
/// [`VolumeError::PartitionTable`], if it is a GPT of which neither copy is whole;
/// [`VolumeError::Disk`]; [`VolumeError::Unsupported`], if the blocks are too large.
pub async fn partitions<D: BlockDevice>(device: &mut D) -> Result<Table, VolumeError> {
    const BLOCK_BYTES: usize = 4096;
    const READ_AHEAD_BYTES: usize = 32 * 1024;
    let size = usize::try_from(device.block_size().get()).unwrap_or(usize::MAX);
    if size > BLOCK_BYTES {
        return Err(VolumeError::Unsupported);
    }
    let mut table = Table::new(device.block_count());
    let device = &mut ReadAhead::new(device, READ_AHEAD_BYTES / size);
    let mut block = vec![0; size];
    match mbr::record(device, 0, &mut block).await? {
        None => {}
        Some(entries) if entries.iter().any(mbr::Entry::is_protective) => {
            gpt::add(&mut table, device, &mut block).await?;
        }
        Some(entries) => mbr::add(&mut table, device, &entries, &mut block).await?,
    }
    Ok(table)
}
