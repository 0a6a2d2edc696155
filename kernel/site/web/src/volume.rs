//! The FAT volume whose files are served: finding, listing, and where on the disk a file's bytes lie.
//!
//! Only the file system's own blocks go through here, through a small read-ahead. The bytes of files do
//! not: [`Volume::extents`] says where they are, and whoever sends a file reads the disk directly, so
//! that downloads wait for each other nowhere but at the disk. Nothing is ever written.
//!
//! A volume may be damaged or made to do harm. Every question has an end: directories are read slot by slot
//! up to a limit, chains of clusters are watched for loops, and nothing outside the volume is read. This
//! stands on the on-disk layer of `hadris-fat` and not on its file system, for which one bad entry makes
//! the whole directory unreadable.
//!
//! Source: Microsoft, FAT32 File System Specification 1.03.

mod directory;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use hadris_fat_raw::io::async_ as io;
use hadris_fat_raw::io::{BlockBuf, ChainPos, DirStart, Fat};
use hadris_fat_raw::{FatKind, ShortEntry, date};
use hadris_fs::{DateTime, ErrorKind, Extent};
use hadris_io::Error;
use hadris_storage::async_::{BlockDevice, ReadAhead};

pub use directory::Cursor;

/// The largest block of a disk that can be read.
const BLOCK_BYTES: usize = 4096;

/// How many slots of directories one question may look at: those of eight full directories.
const MOST_SLOTS: u32 = 8 * hadris_fat_raw::MAX_DIR_ENTRIES;

/// A mounted volume.
pub struct Volume<D: BlockDevice> {
    reader: Mutex<NoopRawMutex, Reader<D>>,
    fat: Fat,
}

/// The disk with what has been read from it.
struct Reader<D: BlockDevice> {
    device: ReadAhead<D>,
    block: Box<BlockBuf<[u8; BLOCK_BYTES]>>,
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
    start: DirStart,
}

/// A file of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The first cluster, 0 if there is none.
    first: u32,
    /// The cluster that was asked for last.
    position: ChainPos,
    /// Its length in bytes.
    pub length: u64,
    /// When it was last changed.
    pub modified: Option<DateTime>,
}

/// One line of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without a path. A path with it leads to the entry.
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
    /// Its clusters are not on the volume: it cannot be opened.
    Damaged,
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Directories first, each kind by name.
    pub entries: Vec<Entry>,
    /// How many entries no path can lead to.
    pub skipped: u32,
    /// Why what follows could not be read.
    pub cut: Option<VolumeError>,
}

/// A number of files, counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCount {
    /// How many were found.
    pub files: usize,
    /// Whether counting stopped there.
    pub more: bool,
    /// How many entries and directories are damaged, of those that were seen.
    pub damaged: usize,
}

impl fmt::Display for FileCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.more { "more than " } else { "" };
        let plural = |count| if count == 1 { "" } else { "s" };
        write!(f, "{more}{} file{}", self.files, plural(self.files))?;
        match self.damaged {
            0 => Ok(()),
            damaged => write!(f, ", {damaged} damaged"),
        }
    }
}

/// Why the volume could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The path leads nowhere.
    #[error("there is no such file")]
    NotFound,
    /// Neither the disk nor one of its partitions has a FAT file system.
    #[error("the disk holds no FAT file system")]
    NoFileSystem,
    /// The partition asked for is not in the table.
    #[error("the disk has no such partition")]
    NoPartition,
    /// The table says nothing that makes sense.
    #[error("the partition table is damaged")]
    PartitionTable,
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

    /// Follows `names` from the root on. Case does not matter, as ever with FAT.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or why the file system could not be read.
    pub async fn find(&self, names: &[String]) -> Result<Found, VolumeError> {
        let mut reader = self.reader.lock().await;
        let mut found = Found::Directory(self.root());
        // A directory may contain itself, so that a path with many names reads it as often.
        let mut slots_left = MOST_SLOTS;
        for name in names {
            let Found::Directory(directory) = found else {
                return Err(VolumeError::NotFound);
            };
            let mut cursor = Cursor::new(directory);
            found = self.find_in(&mut reader, &mut cursor, name).await?;
            slots_left = slots_left
                .checked_sub(cursor.slot())
                .ok_or(VolumeError::Unsupported)?;
        }
        Ok(found)
    }

    /// Looks one name up in a directory.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub async fn find_entry(&self, directory: Directory, name: &str) -> Result<Found, VolumeError> {
        let mut reader = self.reader.lock().await;
        self.find_in(&mut reader, &mut Cursor::new(directory), name)
            .await
    }

    async fn find_in(
        &self,
        reader: &mut Reader<D>,
        cursor: &mut Cursor,
        name: &str,
    ) -> Result<Found, VolumeError> {
        while let Some(raw) = self.next_raw(reader, cursor).await? {
            if raw.is_called(name) {
                return self.content(&raw.short).ok_or(VolumeError::Damaged);
            }
        }
        Err(VolumeError::NotFound)
    }

    /// The next entries of the directory that `cursor` is in, at most `count`, in the order of the disk; none behind
    /// the last. Entries that no path can lead to are left out and counted. Who wants several asks for them at once:
    /// what is read ahead for one may be lost to another one who reads elsewhere. The error says why the directory
    /// cannot be read further.
    pub async fn next_entries(
        &self,
        cursor: &mut Cursor,
        count: usize,
    ) -> (Vec<Entry>, Option<VolumeError>) {
        let mut entries = Vec::new();
        let mut reader = self.reader.lock().await;
        while entries.len() < count {
            let raw = match self.next_raw(&mut reader, cursor).await {
                Ok(Some(raw)) => raw,
                Ok(None) => break,
                Err(error) => return (entries, Some(error)),
            };
            let Some(name) = raw.name() else {
                cursor.count_skipped();
                continue;
            };
            let kind = match self.content(&raw.short) {
                Some(Found::Directory(_)) => EntryKind::Directory,
                Some(Found::File(file)) => EntryKind::File(file.length),
                None => EntryKind::Damaged,
            };
            entries.push(Entry {
                name,
                kind,
                modified: modified(&raw.short),
            });
        }
        (entries, None)
    }

    /// The entries of a directory, directories first, each kind by name. `None`, if they take more than `memory`
    /// bytes: then [`next_entries`](Self::next_entries) has some after the others.
    ///
    /// # Errors
    /// [`VolumeError`], if none can be read.
    pub async fn list(
        &self,
        directory: Directory,
        memory: usize,
    ) -> Result<Option<Listing>, VolumeError> {
        const AT_ONCE: usize = 32;
        let mut entries: Vec<Entry> = Vec::new();
        let mut left = memory;
        let mut cursor = Cursor::new(directory);
        let cut = loop {
            let (more, error) = self.next_entries(&mut cursor, AT_ONCE).await;
            let is_last = more.is_empty();
            match left.checked_sub(more.iter().map(Entry::memory).sum()) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
            entries.extend(more);
            match error {
                Some(error) if entries.is_empty() => return Err(error),
                None if !is_last => {}
                cut => break cut,
            }
        };
        entries.sort_by_cached_key(Entry::order);
        // Before a loop of the directory's chain is noticed, it may have been read more than once.
        entries.dedup();
        Ok(Some(Listing {
            entries,
            skipped: cursor.skipped(),
            cut,
        }))
    }

    /// Counts the files of the whole volume, until there are more than `limit`, or so many directories were
    /// seen or wait.
    ///
    /// # Errors
    /// [`VolumeError::Disk`]. Directories that are damaged are counted.
    pub async fn count_files(&self, limit: usize) -> Result<FileCount, VolumeError> {
        let mut count = FileCount {
            files: 0,
            more: false,
            damaged: 0,
        };
        let mut directories = vec![self.root()];
        let (mut seen, mut slots_left) = (0, MOST_SLOTS);
        while let Some(directory) = directories.pop() {
            seen += 1;
            let mut cursor = Cursor::new(directory);
            loop {
                let mut reader = self.reader.lock().await;
                let raw = match self.next_raw(&mut reader, &mut cursor).await {
                    Ok(Some(raw)) => raw,
                    Ok(None) => break,
                    Err(VolumeError::Disk) => return Err(VolumeError::Disk),
                    Err(_) => {
                        count.damaged += 1;
                        break;
                    }
                };
                let content = self.content(&raw.short).filter(|_| raw.name().is_some());
                let full = match content {
                    None => {
                        count.damaged += 1;
                        false
                    }
                    Some(Found::Directory(below)) => {
                        directories.push(below);
                        directories.len() > limit
                    }
                    Some(Found::File(_)) if count.files == limit => true,
                    Some(Found::File(_)) => {
                        count.files += 1;
                        false
                    }
                };
                if full || seen > limit || cursor.slot() > slots_left {
                    count.more = true;
                    return Ok(count);
                }
            }
            slots_left = slots_left.saturating_sub(cursor.slot());
        }
        Ok(count)
    }

    /// Follows the chain of a file, so that one that is broken is refused before its first byte is sent. Of very
    /// large files only the beginning is looked at.
    ///
    /// # Errors
    /// [`VolumeError::Damaged`], if the chain is broken, loops or is shorter than the file.
    pub async fn check(&self, file: &File) -> Result<(), VolumeError> {
        const MOST_CLUSTERS: u32 = 64 * 1024;
        let Some(last) = file.length.checked_sub(1) else {
            return Ok(());
        };
        let want = self.cluster_index(last).min(MOST_CLUSTERS);
        let mut reader = self.reader.lock().await;
        self.walk(&mut reader, file, want).await.map(|_| ())
    }

    /// Where on the device the bytes of a file lie, from the byte `from` or a little before on.
    /// They come in the order of the file and not all at once: ask again from the end of the last one.
    ///
    /// # Errors
    /// [`VolumeError::Damaged`], if the chain of clusters is broken, loops, or ends before the byte `from`.
    pub async fn extents(&self, file: &mut File, from: u64) -> Result<Vec<Extent>, VolumeError> {
        const MOST_AT_ONCE: usize = 32;
        const MOST_CLUSTERS: u32 = 1024;
        let mut extents: Vec<Extent> = Vec::new();
        if from >= file.length {
            return Ok(extents);
        }
        let mut reader = self.reader.lock().await;
        let cluster_size = u64::from(self.fat.geometry().cluster_size());
        let first = self.cluster_index(from);
        let mut at = self.walk(&mut reader, file, first).await?;
        file.position = at;
        let end = first.saturating_add(MOST_CLUSTERS);
        let last = self.cluster_index(file.length - 1).min(end);
        loop {
            let offset = self.fat.cluster_at(at.cluster());
            let offset = offset.map_err(|_| VolumeError::Damaged)?;
            let start = u64::from(at.index()) * cluster_size;
            let length = cluster_size.min(file.length - start);
            let full = extents.len() == MOST_AT_ONCE;
            match extents.last_mut() {
                Some(run) if run.offset() + run.len() == offset => {
                    *run = Extent::new(run.offset(), run.len() + length)
                        .with_file_offset(run.file_offset());
                }
                _ if full => return Ok(extents),
                _ => extents.push(Extent::new(offset, length).with_file_offset(start)),
            }
            if at.index() >= last {
                return Ok(extents);
            }
            let Reader { device, block } = &mut *reader;
            let next = io::next(device, &mut **block, &self.fat, at.cluster()).await?;
            if !next.is_some_and(|next| at.advance(next)) {
                return Err(VolumeError::Damaged);
            }
        }
    }

    /// The cluster with the index `want` in the chain of a file.
    async fn walk(
        &self,
        reader: &mut Reader<D>,
        file: &File,
        want: u32,
    ) -> Result<ChainPos, VolumeError> {
        let Reader { device, block } = reader;
        let from = file.position;
        let at = io::walk(device, &mut **block, &self.fat, file.first, from, want).await?;
        if at.index() == want {
            Ok(at)
        } else {
            Err(VolumeError::Damaged)
        }
    }

    /// The index of the cluster that holds a byte of a file.
    fn cluster_index(&self, byte: u64) -> u32 {
        // A file has less than 4 GiB, and a cluster 512 bytes at least.
        u32::try_from(byte >> self.fat.geometry().cluster_shift()).unwrap_or(u32::MAX)
    }

    /// What a directory's entry stands for; `None`, if its clusters are not on the volume.
    fn content(&self, entry: &ShortEntry) -> Option<Found> {
        let geometry = self.fat.geometry();
        let first = entry.first_cluster(geometry.kind());
        if entry.is_dir() {
            let start = DirStart::Chain(self.fat.check_cluster(first).ok()?);
            return Some(Found::Directory(Directory { start }));
        }
        let length = u64::from(entry.size());
        let room = geometry.data_end() - geometry.data_start();
        if length > 0 && !(self.fat.is_cluster(first) && length <= room) {
            return None;
        }
        Some(Found::File(File {
            first,
            position: ChainPos::NONE,
            length,
            modified: modified(entry),
        }))
    }
}

/// Whether a boot sector that no FAT has says whose it is.
fn is_ntfs(sector: &[u8]) -> bool {
    sector.get(3..7) == Some(b"NTFS")
}

fn modified(entry: &ShortEntry) -> Option<DateTime> {
    let (date, time) = entry.modified();
    date::decode(date, time, 0, None)
}

impl<D: BlockDevice> fmt::Debug for Volume<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// How much memory it takes in a list that grows, and while the list is sorted.
    fn memory(&self) -> usize {
        2 * size_of::<Self>() + size_of::<(bool, String, usize)>() + 3 * self.name.len()
    }

    fn order(&self) -> (bool, String) {
        (self.kind != EntryKind::Directory, self.name.to_lowercase())
    }
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
