//! The slots of a directory, one after the other, and the names in them.

use alloc::string::String;

use hadris_fat_raw::io::DirWalk;
use hadris_fat_raw::io::async_ as io;
use hadris_fat_raw::lfn::{Assembler, MAX_UNITS};
use hadris_fat_raw::name::eq_folded;
use hadris_fat_raw::{ShortEntry, Slot, fold_unicode, short_name};
use hadris_fs::{CodePage, Cp437};
use hadris_storage::async_::BlockDevice;

use super::entry::Directory;
use super::error::VolumeError;
use super::mount::{Reader, Volume};
use crate::path::is_possible;

/// How many slots of directories one question may look at: those of eight full directories.
pub(super) const MOST_SLOTS: u32 = 8 * hadris_fat_raw::MAX_DIR_ENTRIES;

/// A place in a directory.
#[derive(Clone, Debug)]
pub struct Cursor {
    walk: DirWalk,
    slot: u32,
    skipped: u32,
    at_end: bool,
}

impl Cursor {
    /// Before the first entry.
    #[must_use]
    pub fn new(directory: Directory) -> Self {
        Self {
            walk: DirWalk::new(directory.start),
            slot: 0,
            skipped: 0,
            at_end: false,
        }
    }

    /// How many entries were left out because no path can lead to them.
    #[must_use]
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// How many slots are behind it.
    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    pub(super) fn count_skipped(&mut self) {
        self.skipped = self.skipped.saturating_add(1);
    }
}

/// An entry as it is on the disk.
pub(super) struct RawEntry {
    pub(super) short: ShortEntry,
    /// The long name's UTF-16 units, as many as there are.
    units: [u16; MAX_UNITS],
    count: usize,
}

impl RawEntry {
    fn new(short: ShortEntry, long: Option<&[u16]>) -> Self {
        let long = long.unwrap_or_default();
        let mut units = [0; MAX_UNITS];
        let count = long.len().min(MAX_UNITS);
        units[..count].copy_from_slice(&long[..count]);
        Self {
            short,
            units,
            count,
        }
    }

    /// The name by which a path leads to the entry: the long one, or else the short one. `None`, if
    /// neither can stand in a path.
    pub(super) fn name(&self) -> Option<String> {
        let long = String::from_utf16(&self.units[..self.count]).ok();
        long.filter(|name| is_possible(name)).or_else(|| {
            // A short name does not start with a space (section 6.1).
            let blank = self.short.name()[0] == b' ';
            let name = self.with_short_name(|name| String::from(name));
            (!blank && is_possible(&name)).then_some(name)
        })
    }

    /// Whether `name` is the long name or the short one, whatever the case.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let equal = |other: &mut dyn Iterator<Item = u16>| {
            eq_folded(name.encode_utf16(), other, fold_unicode)
        };
        let long = &self.units[..self.count];
        equal(&mut long.iter().copied())
            || self.with_short_name(|short| equal(&mut short.encode_utf16()))
    }

    fn with_short_name<R>(&self, use_name: impl FnOnce(&str) -> R) -> R {
        let mut text = [0; short_name::DISPLAY_MAX];
        let (stored, case) = (self.short.name(), self.short.nt_case());
        let length = short_name::display(&stored, case, |byte| Cp437.decode(byte), &mut text);
        use_name(str::from_utf8(&text[..length]).unwrap_or_default())
    }
}

/// Whether an entry is neither the volume's label nor `.` or `..`, which start every directory
/// below the root.
fn is_file_or_directory(entry: &ShortEntry) -> bool {
    !entry.is_label() && !entry.is_dot_dot() && entry.name() != *b".          "
}

impl<D: BlockDevice> Volume<D> {
    /// The next file or directory, whatever state its entry is in; `None` behind the last.
    pub(super) async fn next_raw(
        &self,
        reader: &mut Reader<D>,
        cursor: &mut Cursor,
    ) -> Result<Option<RawEntry>, VolumeError> {
        let Reader { device, block } = reader;
        let mut long = Assembler::new();
        while !cursor.at_end {
            let (fat, walk) = (&self.fat, &mut cursor.walk);
            let offset = io::slot_offset(device, &mut **block, fat, walk, cursor.slot).await?;
            let Some(offset) = offset else {
                cursor.at_end = true;
                break;
            };
            cursor.slot += 1;
            match io::read_slot(device, &mut **block, offset).await? {
                Slot::End => cursor.at_end = true,
                Slot::Free => long.reset(),
                Slot::Long(part) => long.push(&part),
                Slot::Short(short) if is_file_or_directory(&short) => {
                    let long = long.finish(short.lfn_checksum());
                    return Ok(Some(RawEntry::new(short, long)));
                }
                Slot::Short(_) => long.reset(),
            }
        }
        Ok(None)
    }
}
