//! What a path leads to.

use alloc::string::String;

use hadris_storage::async_::BlockDevice;

use super::directory::{Cursor, MOST_SLOTS};
use super::entry::{Directory, Found};
use super::error::VolumeError;
use super::mount::{Reader, Volume};

impl<D: BlockDevice> Volume<D> {
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
                return Found::of(&self.fat, &raw.short).ok_or(VolumeError::Damaged);
            }
        }
        Err(VolumeError::NotFound)
    }
}
