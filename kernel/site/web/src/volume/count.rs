//! How many files a volume has.

use alloc::vec;
use core::fmt;

use hadris_storage::async_::BlockDevice;

use super::directory::{Cursor, MOST_SLOTS};
use super::entry::Found;
use super::error::VolumeError;
use super::mount::Volume;

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

impl<D: BlockDevice> Volume<D> {
    /// Counts the files of the whole volume, until there are more than `limit`, or so many
    /// directories were seen or wait.
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
                let content = Found::of(&self.fat, &raw.short).filter(|_| raw.name().is_some());
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
}
