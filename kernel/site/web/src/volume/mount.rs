//! The volume itself: its boot sector, and the disk behind it.

use alloc::boxed::Box;
use core::fmt;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use hadris_fat_raw::FatKind;
use hadris_fat_raw::io::async_ as io;
use hadris_fat_raw::io::{BlockBuf, Fat};
use hadris_storage::async_::{BlockDevice, ReadAhead};

use super::entry::Directory;
use super::error::VolumeError;

/// The largest block of a disk that can be read.
const BLOCK_BYTES: usize = 4096;

/// A mounted volume.
pub struct Volume<D: BlockDevice> {
    pub(super) reader: Mutex<NoopRawMutex, Reader<D>>,
    pub(super) fat: Fat,
}

/// The disk with what has been read from it.
pub(super) struct Reader<D: BlockDevice> {
    pub(super) device: ReadAhead<D>,
    pub(super) block: Box<BlockBuf<[u8; BLOCK_BYTES]>>,
}

impl<D: BlockDevice> Volume<D> {
    /// Reads the boot sector of the volume that fills `device`, and nothing else yet.
    ///
    /// # Errors
    /// [`VolumeError`], if there is no FAT volume or the device fails.
    pub async fn mount(device: D) -> Result<Self, VolumeError> {
        /// Two windows of half the size: one may follow a chain of clusters, one a directory.
        const READ_AHEAD_BYTES: usize = 64 * 1024;
        let block_size = usize::try_from(device.block_size().get()).unwrap_or(usize::MAX);
        let block = BlockBuf::new(block_size).ok_or(VolumeError::Unsupported)?;
        if device.block_count() == 0 {
            return Err(VolumeError::NoFileSystem);
        }
        let mut reader = Reader {
            device: ReadAhead::new(device, READ_AHEAD_BYTES / block_size),
            block: Box::new(block),
        };
        let geometry = io::read_geometry(&mut reader.device, &mut *reader.block).await;
        let geometry = match geometry.map_err(VolumeError::from) {
            Ok(geometry) => geometry,
            Err(VolumeError::Damaged) if is_ntfs(reader.block.contents()) => {
                return Err(VolumeError::NoFileSystem);
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            reader: Mutex::new(reader),
            fat: Fat::new(geometry),
        })
    }

    /// The name of the file system's variant.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.fat.geometry().kind() {
            FatKind::Fat12 => "FAT12",
            FatKind::Fat16 => "FAT16",
            FatKind::Fat32 => "FAT32",
            _ => "FAT",
        }
    }

    /// The directory that paths start from.
    #[must_use]
    pub fn root(&self) -> Directory {
        let start = self.fat.root();
        Directory { start }
    }
}

/// Whether a boot sector that no FAT has says whose it is.
fn is_ntfs(sector: &[u8]) -> bool {
    sector.get(3..7) == Some(b"NTFS")
}

impl<D: BlockDevice> fmt::Debug for Volume<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
