//! What stands in a directory: files and further directories.

use alloc::string::String;

use hadris_fat_raw::io::{ChainPos, DirStart, Fat};
use hadris_fat_raw::{ShortEntry, date};
use hadris_fs::DateTime;

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
    pub(super) start: DirStart,
}

/// A file of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The first cluster, 0 if there is none.
    pub(super) first: u32,
    /// The cluster that was asked for last.
    pub(super) position: ChainPos,
    /// Its length in bytes.
    pub length: u64,
    /// When it was last changed.
    pub modified: Option<DateTime>,
}

/// One line of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl Found {
    /// What a directory's entry stands for; `None`, if its clusters are not on the volume.
    pub(super) fn of(fat: &Fat, entry: &ShortEntry) -> Option<Self> {
        let geometry = fat.geometry();
        let first = entry.first_cluster(geometry.kind());
        if entry.is_dir() {
            let start = DirStart::Chain(fat.check_cluster(first).ok()?);
            return Some(Self::Directory(Directory { start }));
        }
        let length = u64::from(entry.size());
        let room = geometry.data_end() - geometry.data_start();
        if length > 0 && !(fat.is_cluster(first) && length <= room) {
            return None;
        }
        Some(Self::File(File {
            first,
            position: ChainPos::NONE,
            length,
            modified: modified(entry),
        }))
    }
}

pub(super) fn modified(entry: &ShortEntry) -> Option<DateTime> {
    let (date, time) = entry.modified();
    date::decode(date, time, 0, None)
}
