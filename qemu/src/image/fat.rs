//! Writes what a [`Scan`] found to a FAT32 volume.

use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use hadris_fat::sync::{FatFs, format};
use hadris_fat::{CacheOptions, FatKind, FatOptions, VolumeLabel};
use hadris_fs::{DateTime, MountOptions, Name, NodeId, OpenMode, SetAttr};
use hadris_storage::host::FileDevice;
use tempfile::{Builder, TempPath};

use super::ImageError;
use super::scan::{Content, Entry, Scan};
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// The volume's label.
const LABEL: &str = "RINGWAY";

/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// The fewest clusters of a FAT32 volume is 65525 (section 3.5), the most 2^28 - 16.
const FEWEST_CLUSTERS: u64 = 66_000;
const MOST_CLUSTERS: u64 = (1 << 28) - 64;

/// The largest number of sectors a boot sector can say.
const MOST_SECTORS: u64 = u32::MAX as u64;

/// Writes the image to a new temporary file.
pub(super) fn write(
    scan: &Scan,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<TempPath, ImageError> {
    let directory = std::env::temp_dir();
    let failed = |message: String| ImageError::Write {
        directory: directory.clone(),
        message,
    };
    let options = geometry(scan)?;
    let image = Builder::new()
        .prefix("ringway-")
        .suffix(".img")
        .tempfile_in(&directory)
        .map_err(|error| failed(error.to_string()))?;
    let (file, path) = image.into_parts();
    let mut device = FileDevice::new(file).map_err(|error| failed(error.to_string()))?;
    format(&mut device, &options).map_err(|error| failed(error.to_string()))?;
    let mount = MountOptions::new().with_utc_offset(0);
    let volume = mount
        .map_err(|error| failed(error.to_string()))
        .and_then(|mount| FatFs::mount(device, mount).map_err(|error| failed(error.to_string())))?;
    let mut copy = Copy {
        volume: volume.with_cache(CacheOptions::new().with_directory_entries(4096)),
        progress,
        interrupt,
        piece: vec![0; PIECE],
        failed: &failed,
    };
    copy.all(scan)?;
    copy.volume
        .unmount()
        .map_err(|error| failed(error.to_string()))?;
    Ok(path)
}

/// A volume that has room for everything: clusters of 4 KiB, larger ones where those would be too
/// many.
fn geometry(scan: &Scan) -> Result<FatOptions, ImageError> {
    let too_large = || ImageError::VolumeTooLarge(scan.root.clone(), scan.bytes());
    let fits = |cluster: u32| {
        let clusters = scan.clusters(cluster.into()).max(FEWEST_CLUSTERS);
        // A table entry of four bytes in each of two tables, and the reserved sectors.
        let sectors = clusters * (u64::from(cluster) / SECTOR) + clusters * 8 / SECTOR + 128;
        (clusters <= MOST_CLUSTERS && sectors <= MOST_SECTORS).then_some((cluster, sectors))
    };
    let (cluster, sectors) = [4096, 8192, 16384, 32768]
        .into_iter()
        .find_map(fits)
        .ok_or_else(too_large)?;
    let mut options = FatOptions::new()
        .with_kind(FatKind::Fat32)
        .with_cluster_size(cluster)
        .with_size(sectors * SECTOR);
    if let Ok(label) = VolumeLabel::new(LABEL) {
        options = options.with_label(label);
    }
    Ok(options)
}

/// Copying in progress.
struct Copy<'a, F> {
    volume: FatFs<FileDevice>,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    piece: Vec<u8>,
    failed: &'a F,
}

impl<F: Fn(String) -> ImageError> Copy<'_, F> {
    fn all(&mut self, scan: &Scan) -> Result<(), ImageError> {
        let mut nodes = Vec::with_capacity(scan.entries.len());
        for entry in &scan.entries {
            let parent = entry
                .parent
                .map_or(self.volume.root(), |index| nodes[index]);
            nodes.push(self.entry(parent, entry)?);
        }
        Ok(())
    }

    fn entry(&mut self, parent: NodeId, entry: &Entry) -> Result<NodeId, ImageError> {
        let name = Name::new(&entry.name);
        let attributes = attributes(entry);
        match entry.content {
            Content::Directory => self
                .volume
                .mkdir(parent, name, &attributes)
                .map_err(|error| self.wrong(&error)),
            Content::File(bytes) => {
                let node = self.volume.create(parent, name, &attributes);
                let node = node.map_err(|error| self.wrong(&error))?;
                self.contents(node, entry, bytes.into())?;
                self.volume
                    .setattr(node, &attributes)
                    .map_err(|error| self.wrong(&error))?;
                self.volume.forget(node, 1);
                Ok(node)
            }
        }
    }

    /// Copies the file as long as it was when it was found; it may have grown since.
    fn contents(&mut self, node: NodeId, entry: &Entry, bytes: u64) -> Result<(), ImageError> {
        let unreadable = |source: io::Error| ImageError::Unreadable {
            path: entry.source.clone(),
            source,
        };
        let mut file = File::open(&entry.source).map_err(unreadable)?.take(bytes);
        self.volume
            .open(node, OpenMode::Write)
            .map_err(|error| self.wrong(&error))?;
        let mut offset = 0;
        loop {
            if self.interrupt.happened() {
                return Err(ImageError::Interrupted);
            }
            let length = file.read(&mut self.piece).map_err(unreadable)?;
            if length == 0 {
                break;
            }
            let mut piece = &self.piece[..length];
            while !piece.is_empty() {
                let written = self.volume.write(node, offset, piece);
                let written = written.map_err(|error| (self.failed)(error.to_string()))?;
                piece = &piece[written..];
                offset += written as u64;
            }
            self.progress.advance(length as u64);
        }
        self.volume.close(node).map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &dyn std::error::Error) -> ImageError {
        (self.failed)(error.to_string())
    }
}

/// The entry's times, as far as the host and FAT have them.
fn attributes(entry: &Entry) -> SetAttr {
    let mut attributes = SetAttr::new();
    if let Some(time) = entry.metadata.modified().ok().and_then(fat_time) {
        attributes = attributes.with_modified(time);
    }
    if let Some(time) = entry.metadata.created().ok().and_then(fat_time) {
        attributes = attributes.with_created(time);
    }
    attributes
}

/// `time` in the range FAT can say, 1980 to 2107 (section 7.1).
fn fat_time(time: SystemTime) -> Option<DateTime> {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_198;
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    DateTime::from_unix_seconds(i64::try_from(seconds).ok()?.clamp(FIRST, LAST)).ok()
}
