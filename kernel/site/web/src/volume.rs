//! The FAT volume whose files are served: finding, listing, and where on the disk a file's bytes lie.
//!
//! Only the file system's own blocks go through here, through a small read-ahead. The bytes of files do
//! not: [`Volume::extents`] says where they are, and whoever sends a file reads the disk directly, so
//! that downloads wait for each other nowhere but at the disk. Nothing is ever written.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use hadris_fat::async_::FatFs;
use hadris_fat::{CacheOptions, FatKind};
use hadris_fs::{DateTime, DirCursor, DirEntry, ErrorKind, Extent, MountOptions, Name, NodeId};
use hadris_io::Error;
use hadris_storage::async_::{BlockDevice, ReadAhead};

/// A mounted volume.
pub struct Volume<D: BlockDevice> {
    fs: Mutex<NoopRawMutex, FatFs<ReadAhead<D>>>,
    kind: FatKind,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A directory.
    Directory(Directory),
    /// A file.
    File(File),
}

/// A directory of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    node: NodeId,
}

/// A file of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    node: NodeId,
    /// Its length in bytes.
    pub length: u64,
    /// When it was last changed.
    pub modified: Option<DateTime>,
}

/// One line of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without a path.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// When it was last changed.
    pub modified: Option<DateTime>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file of this many bytes.
    File(u64),
}

/// A number of files, counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCount {
    /// How many were found.
    pub files: usize,
    /// Whether counting stopped there.
    pub more: bool,
}

impl fmt::Display for FileCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.more { "more than " } else { "" };
        let plural = if self.files == 1 { "" } else { "s" };
        write!(f, "{more}{} file{plural}", self.files)
    }
}

/// Why the volume could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The path leads nowhere.
    #[error("there is no such file")]
    NotFound,
    /// The disk has no FAT file system. A partition table is none.
    #[error("the disk holds no FAT file system")]
    NoFileSystem,
    /// The file system contradicts itself.
    #[error("the file system is damaged")]
    Damaged,
    /// A block of the disk is larger than the file system can handle, or a limit of the reader is met.
    #[error("the file system exceeds what can be read")]
    Unsupported,
    /// The disk failed or was removed.
    #[error("the disk cannot be read")]
    Disk,
}

impl<E> From<Error<E>> for VolumeError {
    fn from(error: Error<E>) -> Self {
        match error.kind() {
            ErrorKind::Io => Self::Disk,
            ErrorKind::NotRecognized => Self::NoFileSystem,
            ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::NameTooLong
            | ErrorKind::InvalidInput => Self::NotFound,
            ErrorKind::Unsupported | ErrorKind::LimitExceeded => Self::Unsupported,
            _ => Self::Damaged,
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Reads the boot sector of the volume that fills `device`, and nothing else yet.
    ///
    /// # Errors
    /// [`VolumeError`], if there is no FAT volume or the device fails.
    pub async fn mount(device: D) -> Result<Self, VolumeError> {
        /// Two windows of half the size: one may follow a chain of clusters, one a directory.
        const READ_AHEAD_BYTES: usize = 64 * 1024;
        const CACHED_BYTES: usize = 32 * 1024;
        let blocks = |bytes: usize| {
            u32::try_from(bytes).map_or(0, |bytes| bytes / device.block_size().get()) as usize
        };
        let cache = CacheOptions::new()
            .with_chain_positions(0)
            .with_blocks(blocks(CACHED_BYTES));
        let read_ahead = blocks(READ_AHEAD_BYTES);
        let device = ReadAhead::new(device, read_ahead);
        let fs = FatFs::mount(device, MountOptions::new().read_only())
            .await
            .map_err(|failure| match VolumeError::from(failure.into_parts().0) {
                // A disk too small for a boot sector.
                VolumeError::NotFound => VolumeError::NoFileSystem,
                other => other,
            })?
            .with_cache(cache);
        Ok(Self {
            kind: fs.info().kind(),
            fs: Mutex::new(fs),
        })
    }

    /// The name of the file system's variant.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.kind {
            FatKind::Fat12 => "FAT12",
            FatKind::Fat16 => "FAT16",
            FatKind::Fat32 => "FAT32",
            _ => "FAT",
        }
    }

    /// Follows `names` from the root on. Case does not matter, as ever with FAT.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or why the file system could not be read.
    pub async fn find(&self, names: &[String]) -> Result<Found, VolumeError> {
        let mut fs = self.fs.lock().await;
        let mut found = Found::Directory(Directory { node: fs.root() });
        for name in names {
            let Found::Directory(directory) = found else {
                return Err(VolumeError::NotFound);
            };
            found = Self::find_in(&mut fs, directory, name).await?;
        }
        Ok(found)
    }

    /// Looks one name up in a directory.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub async fn find_entry(&self, directory: Directory, name: &str) -> Result<Found, VolumeError> {
        let mut fs = self.fs.lock().await;
        Self::find_in(&mut fs, directory, name).await
    }

    async fn find_in(
        fs: &mut FatFs<ReadAhead<D>>,
        directory: Directory,
        name: &str,
    ) -> Result<Found, VolumeError> {
        let node = fs.lookup(directory.node, Name::new(name)).await?;
        let metadata = fs.stat(node).await;
        // Nothing changes on a volume that is only read, so the id stays good without its pin.
        fs.forget(node, 1);
        let metadata = metadata?;
        if metadata.file_type().is_dir() {
            return Ok(Found::Directory(Directory { node }));
        }
        Ok(Found::File(File {
            node,
            length: metadata.len(),
            modified: metadata.modified(),
        }))
    }

    /// The entries of a directory, directories first, each kind by name.
    ///
    /// # Errors
    /// [`VolumeError`], if it cannot be read, or has more entries than a page can show.
    pub async fn list(&self, directory: Directory) -> Result<Vec<Entry>, VolumeError> {
        const MOST_ENTRIES: usize = 10_000;
        let mut entries = Vec::new();
        let mut cursor = DirCursor::START;
        let mut fs = self.fs.lock().await;
        while let Some(entry) = fs.readdir(directory.node, cursor).await? {
            if entries.len() == MOST_ENTRIES {
                return Err(VolumeError::Unsupported);
            }
            cursor = entry.next_cursor();
            entries.push(Entry::from(&entry));
        }
        entries.sort_by_cached_key(Entry::order);
        Ok(entries)
    }

    /// Counts the files of the whole volume, until there are more than `limit` or `limit` directories
    /// were seen.
    ///
    /// # Errors
    /// [`VolumeError`], if a directory cannot be read.
    pub async fn count_files(&self, limit: usize) -> Result<FileCount, VolumeError> {
        let mut files = 0;
        let mut directories = vec![self.fs.lock().await.root()];
        let mut seen = 0;
        while let Some(directory) = directories.pop() {
            seen += 1;
            if seen > limit {
                return Ok(FileCount { files, more: true });
            }
            let mut cursor = DirCursor::START;
            while let Some(entry) = self.fs.lock().await.readdir(directory, cursor).await? {
                cursor = entry.next_cursor();
                if entry.file_type().is_dir() {
                    directories.push(entry.node());
                } else if files == limit {
                    return Ok(FileCount { files, more: true });
                } else {
                    files += 1;
                }
            }
        }
        Ok(FileCount { files, more: false })
    }

    /// Where on the device the bytes of a file lie, from the extent that holds the byte `from` on.
    /// They come in the order of the file and not all at once: ask again from the end of the last one.
    ///
    /// # Errors
    /// [`VolumeError::Damaged`], if the chain of clusters is broken or ends before the byte `from`.
    pub async fn extents(&self, file: &File, from: u64) -> Result<Vec<Extent>, VolumeError> {
        const MOST_AT_ONCE: usize = 32;
        let mut extents = vec![Extent::new(0, 0); MOST_AT_ONCE];
        let count = self
            .fs
            .lock()
            .await
            .extents(file.node, from, &mut extents)
            .await?;
        extents.truncate(count);
        if extents.is_empty() && from < file.length {
            return Err(VolumeError::Damaged);
        }
        Ok(extents)
    }
}

impl<D: BlockDevice> fmt::Debug for Volume<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn order(&self) -> (bool, String) {
        (self.kind != EntryKind::Directory, self.name.to_lowercase())
    }
}

impl From<&DirEntry> for Entry {
    fn from(entry: &DirEntry) -> Self {
        let kind = if entry.file_type().is_dir() {
            EntryKind::Directory
        } else {
            EntryKind::File(entry.metadata().len())
        };
        Self {
            name: String::from_utf8_lossy(entry.name().as_bytes()).to_string(),
            kind,
            modified: entry.metadata().modified(),
        }
    }
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
