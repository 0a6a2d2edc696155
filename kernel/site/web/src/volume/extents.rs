//! Where on the disk the bytes of a file lie.

use alloc::vec::Vec;

use hadris_fat_raw::io::ChainPos;
use hadris_fat_raw::io::async_ as io;
use hadris_fs::Extent;
use hadris_storage::async_::BlockDevice;

use super::entry::File;
use super::error::VolumeError;
use super::mount::{Reader, Volume};

impl<D: BlockDevice> Volume<D> {
    /// Follows the chain of a file, so that one that is broken is refused before its first byte is
    /// sent. Of very large files only the beginning is looked at.
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
    /// They come in the order of the file and not all at once: ask again from the end of the last
    /// one.
    ///
    /// # Errors
    /// [`VolumeError::Damaged`], if the chain of clusters is broken, loops, or ends before the byte
    /// `from`.
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
}
