//! The disk that is served and the volume on it.

use alloc::format;
use alloc::string::{String, ToString};

use kernel::System;
use log::warn;
use virtio_blk::Disk;
use web::pieces::SECTOR;
use web::status;
use web::volume::{Volume, VolumeError};

use crate::disk::DiskDevice;

/// A disk with a file system that can be read.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) disk: Disk,
    pub(crate) volume: Volume<DiskDevice>,
}

/// Why there are no files to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoFiles {
    #[error("no disk was found")]
    NoDisk,
    #[error("{0}")]
    Volume(#[from] VolumeError),
}

impl Files {
    /// Takes the first disk and mounts its volume.
    pub(crate) async fn open(system: &System) -> Result<Self, NoFiles> {
        let disk = system.disks().take().ok_or(NoFiles::NoDisk)?;
        let device = DiskDevice::new(disk.clone()).ok_or(VolumeError::Unsupported)?;
        match Volume::mount(device).await {
            Ok(volume) => Ok(Self { disk, volume }),
            Err(error) => {
                warn!("site: {}: {error}", disk.name());
                Err(error.into())
            }
        }
    }

    /// What is served, in a few words. It reads directories, though not endlessly many.
    pub(crate) async fn describe(&self) -> String {
        const MOST_COUNTED: usize = 1000;
        let (disk, kind) = (self.disk.name(), self.volume.kind());
        match self.volume.count_files(MOST_COUNTED).await {
            Ok(count) => format!("{disk} ({kind}, {count})"),
            Err(error) => format!("{disk} ({kind}, {error})"),
        }
    }

    /// The entry for the page.
    pub(crate) fn status(&self) -> status::Files {
        status::Files::Ready {
            disk: self.disk.name().to_string(),
            kind: self.volume.kind(),
            size: self.disk.capacity().saturating_mul(SECTOR),
        }
    }
}
