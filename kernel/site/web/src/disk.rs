//! Which volume of a disk is served: that of the whole disk, or that of a partition.

use core::num::NonZeroU16;
use core::str::FromStr;

use hadris_storage::Partition;
use hadris_storage::async_::BlockDevice;

use crate::partition::{Table, partitions};
use crate::volume::{Volume, VolumeError};

/// What `disk=` on the kernel's command line says: a disk, such as `blk1`, or a partition, such as
/// `blk0p2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The name of the disk.
    pub disk: &'a str,
    /// The number of the partition, from 1 on. Without it the first volume of the disk is meant.
    pub partition: Option<usize>,
}

/// The value of `disk=` names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("disk= takes a disk, such as blk1, or a partition, such as blk0p2")]
pub struct ChoiceError;

impl<'a> Choice<'a> {
    /// Reads the value of `disk=`.
    ///
    /// # Errors
    /// [`ChoiceError`].
    pub fn parse(text: &'a str) -> Result<Self, ChoiceError> {
        let (disk, partition) = match text.split_once('p') {
            Some((disk, partition)) => (disk, Some(partition)),
            None => (text, None),
        };
        number::<u32>(disk.strip_prefix("blk").ok_or(ChoiceError)?)?;
        let partition = partition.map(number::<NonZeroU16>).transpose()?;
        Ok(Self {
            disk,
            partition: partition.map(|number| usize::from(number.get())),
        })
    }
}

/// A number as it stands in a name: digits alone, and no zero before others.
fn number<T: FromStr>(text: &str) -> Result<T, ChoiceError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(ChoiceError);
    }
    text.parse().map_err(|_| ChoiceError)
}

/// A volume, and where on its disk it lies.
#[derive(Debug)]
pub struct Opened<D: BlockDevice> {
    /// The volume. Nothing outside its part of the disk is read for it.
    pub volume: Volume<Partition<D>>,
    /// The number of its partition; `None`, if it fills the disk.
    pub partition: Option<usize>,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// What came of looking for a volume.
#[derive(Debug)]
pub struct Search<D: BlockDevice> {
    /// The volume, or why none could be mounted.
    pub opened: Result<Opened<D>, VolumeError>,
    /// How many entries of the partition table were left out: see [`Table::skipped`].
    pub skipped: usize,
}

/// Mounts the partition `wanted`; or the disk as a whole, if it is a volume; or the first partition
/// that is one.
pub async fn open<D>(device: D, wanted: Option<usize>) -> Search<D>
where
    D: BlockDevice + Clone,
{
    let mut skipped = 0;
    let opened = find(device, wanted, &mut skipped).await;
    Search { opened, skipped }
}

async fn find<D>(
    mut device: D,
    wanted: Option<usize>,
    skipped: &mut usize,
) -> Result<Opened<D>, VolumeError>
where
    D: BlockDevice + Clone,
{
    let mut reason = VolumeError::NoFileSystem;
    if wanted.is_none() {
        match mount(&device, 0, device.block_count(), None).await {
            Err(VolumeError::Disk) => return Err(VolumeError::Disk),
            Err(error) => reason = error,
            mounted => return mounted,
        }
    }
    let found = match partitions(&mut device).await {
        Ok(Table {
            partitions,
            skipped: count,
            ..
        }) => {
            *skipped = count;
            partitions
        }
        // What looked like a file system is more likely to be one.
        Err(_) if reason == VolumeError::Damaged => return Err(reason),
        Err(error) => return Err(error),
    };
    if let Some(wanted) = wanted {
        let partition = found.iter().find(|partition| partition.number == wanted);
        let partition = partition.ok_or(VolumeError::NoPartition)?;
        return mount(&device, partition.first, partition.blocks, Some(wanted)).await;
    }
    for partition in &found {
        let number = Some(partition.number);
        match mount(&device, partition.first, partition.blocks, number).await {
            Err(VolumeError::Disk) => return Err(VolumeError::Disk),
            Err(VolumeError::NoFileSystem) => {}
            Err(error) => reason = error,
            mounted => return mounted,
        }
    }
    Err(reason)
}

async fn mount<D: BlockDevice + Clone>(
    device: &D,
    first: u64,
    blocks: u64,
    partition: Option<usize>,
) -> Result<Opened<D>, VolumeError> {
    let block = u64::from(device.block_size().get());
    let (start, length) = (first.saturating_mul(block), blocks.saturating_mul(block));
    let part = Partition::new(device.clone(), start, length);
    Ok(Opened {
        volume: Volume::mount(part).await?,
        partition,
        start,
        length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_or_one_of_its_partitions_is_chosen() {
        for (text, disk, partition) in [
            ("blk0", "blk0", None),
            ("blk12", "blk12", None),
            ("blk0p1", "blk0", Some(1)),
            ("blk3p128", "blk3", Some(128)),
        ] {
            assert_eq!(
                Choice::parse(text),
                Ok(Choice { disk, partition }),
                "{text}"
            );
        }
    }

    #[test]
    fn what_names_no_disk_is_refused() {
        for text in [
            "",
            "blk",
            "0",
            "sda1",
            "BLK0",
            "blk-1",
            "blk+1",
            "blk0p",
            "blk0p0",
            "blk0p01",
            "blk00",
            "blkp1",
            "blk0p1p2",
            "blk0 ",
            "blk1,",
            "blk4294967296",
            "blk0p65536",
            "blk٣",
        ] {
            assert_eq!(Choice::parse(text), Err(ChoiceError), "{text:?}");
        }
    }
}
