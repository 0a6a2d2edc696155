//! What a directory holds, for a page.

use alloc::collections::BinaryHeap;
use alloc::string::String;
use alloc::vec::Vec;

use hadris_storage::async_::BlockDevice;

use super::directory::Cursor;
use super::entry::{Directory, Entry, EntryKind, Found, modified};
use super::error::VolumeError;
use super::mount::Volume;

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

impl<D: BlockDevice> Volume<D> {
    /// The next entries of the directory that `cursor` is in, at most `count`, in the order of the
    /// disk; none behind the last. Entries that no path can lead to are left out and counted. Who
    /// wants several asks for them at once: what is read ahead for one may be lost to another one
    /// who reads elsewhere. The error says why the directory cannot be read further.
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
            let kind = match Found::of(&self.fat, &raw.short) {
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

    /// The entries of a directory, directories first, each kind by name. `None`, if they take more
    /// than `memory` bytes: then [`next_entries`](Self::next_entries) has some after the others.
    ///
    /// # Errors
    /// [`VolumeError`], if none can be read.
    pub async fn list(
        &self,
        directory: Directory,
        memory: usize,
    ) -> Result<Option<Listing>, VolumeError> {
        const AT_ONCE: usize = 32;
        let mut entries: Vec<Keyed> = Vec::new();
        let mut left = memory;
        let mut cursor = Cursor::new(directory);
        let cut = loop {
            let (more, error) = self.next_entries(&mut cursor, AT_ONCE).await;
            let is_last = more.is_empty();
            match left.checked_sub(more.iter().map(Entry::memory).sum()) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
            entries.extend(more.into_iter().map(Keyed::from));
            match error {
                Some(error) if entries.is_empty() => return Err(error),
                None if !is_last => {}
                cut => break cut,
            }
        };
        // A heap sorts with a fraction of the code that the sorting of slices has.
        let sorted = BinaryHeap::from(entries).into_sorted_vec().into_iter();
        let mut entries: Vec<Entry> = sorted.map(|keyed| keyed.entry).collect();
        // Before a loop of the directory's chain is noticed, it may have been read more than once.
        entries.dedup();
        Ok(Some(Listing {
            entries,
            skipped: cursor.skipped(),
            cut,
        }))
    }
}

/// An entry with what its place depends on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Keyed {
    is_behind_directories: bool,
    folded_name: String,
    entry: Entry,
}

impl From<Entry> for Keyed {
    fn from(entry: Entry) -> Self {
        // Not `str::to_lowercase`, which knows the end of a Greek word and has tables for that.
        let name = entry.name.chars().flat_map(char::to_lowercase);
        Self {
            is_behind_directories: entry.kind != EntryKind::Directory,
            folded_name: name.collect(),
            entry,
        }
    }
}

impl Entry {
    /// How much memory it takes in a list that grows and is sorted.
    fn memory(&self) -> usize {
        2 * size_of::<Keyed>() + 3 * self.name.len()
    }
}
