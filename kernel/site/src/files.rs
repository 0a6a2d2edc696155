//! The disk that is served and the volume on it.

use alloc::format;
use alloc::string::String;

use hadris_storage::Partition;
use kernel::System;
use kernel::log::warn;
use virtio_blk::Disk;
use web::disk::{Choice, ChoiceError, Search, open};
use web::pieces::SECTOR;
use web::status;
use web::volume::{Volume, VolumeError};

use crate::disk::DiskDevice;

/// A disk with a file system that can be read.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) disk: Disk,
    pub(crate) volume: Volume<Partition<DiskDevice>>,
    /// The sector of the disk where the volume begins.
    pub(crate) first_sector: u64,
    /// The disk's name, or the partition's, as `blk0p1`.
    name: String,
    /// The size of the disk or the partition in bytes.
    size: u64,
}

/// Why there are no files to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoFiles {
    #[error("no disk was found")]
    NoDisk,
    #[error("the disk that disk= names was not found")]
    NoSuchDisk,
    #[error("{0}")]
    Choice(#[from] ChoiceError),
    #[error("{0}")]
    Volume(#[from] VolumeError),
}

impl Files {
    /// Mounts the volume that `disk=` chooses; without it, the first one of the first disk that has
    /// one.
    pub(crate) async fn open(system: &System) -> Result<Self, NoFiles> {
        if let Some(text) = system.command_line().get("disk") {
            let Choice { disk, partition } = Choice::parse(text)?;
            let disk = system.disks().take_named(disk);
            return Self::mount(disk.ok_or(NoFiles::NoSuchDisk)?, partition).await;
        }
        let mut reason = NoFiles::NoDisk;
        while let Some(disk) = system.disks().take() {
            match Self::mount(disk, None).await {
                Err(error) => reason = error,
                mounted => return mounted,
            }
        }
        Err(reason)
    }

    async fn mount(disk: Disk, partition: Option<usize>) -> Result<Self, NoFiles> {
        let device = DiskDevice::new(disk.clone()).ok_or(VolumeError::Unsupported)?;
        let Search { opened, skipped } = open(device, partition).await;
        if skipped > 0 {
            warn!(
                "site: {}: partitions left out, because they begin outside the disk or overlap others: {skipped}",
                disk.name()
            );
        }
        match opened {
            Ok(opened) => Ok(Self {
                name: match opened.partition {
                    Some(number) => format!("{}p{number}", disk.name()),
                    None => String::from(disk.name()),
                },
                disk,
                volume: opened.volume,
                first_sector: opened.start / SECTOR,
                size: opened.length,
            }),
            Err(error) => {
                warn!("site: {}: {error}", disk.name());
                Err(error.into())
            }
        }
    }

    /// What is served, in a few words. It reads directories, though not endlessly many.
    pub(crate) async fn describe(&self) -> String {
        const MOST_COUNTED: usize = 1000;
        let (disk, kind) = (&self.name, self.volume.kind());
        match self.volume.count_files(MOST_COUNTED).await {
            Ok(count) => format!("{disk} ({kind}, {count})"),
            Err(error) => format!("{disk} ({kind}, {error})"),
        }
    }

    /// The entry for the page.
    pub(crate) fn status(&self) -> status::Files {
        status::Files::Ready {
            disk: self.name.clone(),
            kind: self.volume.kind(),
            size: self.size,
        }
    }
}
