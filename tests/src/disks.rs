//! The two test disks: filled before a guest boots, compared with what it should have left after.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use guest_tests::disk::{
    GUEST_SEED, HOST_SEED, READ_ONLY, SCRATCH, SECTOR_BYTES, SECTORS, WRITABLE, WRITTEN, fill,
    first_difference,
};
use qemu::device::{Disk, VirtioOptions};
use qemu::format::Access;
use tempfile::TempDir;

/// Sectors that are filled and compared at once.
const PIECE: u64 = 2048;

/// The images of one guest, which go with this value.
#[derive(Debug)]
pub struct TestDisks {
    directory: TempDir,
}

impl TestDisks {
    /// Makes both images.
    ///
    /// # Errors
    ///
    /// What creating and writing files gives.
    pub fn new() -> io::Result<Self> {
        let disks = Self {
            directory: TempDir::with_prefix("ringway-disks-")?,
        };
        for name in [WRITABLE, READ_ONLY] {
            let mut image = File::create(disks.path(name))?;
            for (first, count) in pieces() {
                let mut bytes = sectors(count);
                fill(&mut bytes, first, HOST_SEED);
                image.write_all(&bytes)?;
            }
        }
        Ok(disks)
    }

    /// The devices that carry the images.
    pub fn devices(&self, virtio: VirtioOptions) -> Vec<Disk> {
        let disk = |name: &str, access| Disk {
            access,
            serial: Some(name.into()),
            virtio,
            ..Disk::new(self.path(name))
        };
        vec![
            disk(WRITABLE, Access::ReadWrite),
            disk(READ_ONLY, Access::ReadOnly),
        ]
    }

    /// Compares both images with what a completed run leaves.
    ///
    /// # Errors
    ///
    /// The first sector that differs, or what reading a file gives.
    pub fn compare(&self) -> Result<(), String> {
        self.compare_image(WRITABLE, |sector| match sector {
            _ if WRITTEN.contains(&sector) => Some(GUEST_SEED),
            _ if SCRATCH.contains(&sector) => None,
            _ => Some(HOST_SEED),
        })?;
        self.compare_image(READ_ONLY, |_| Some(HOST_SEED))
    }

    /// Compares each sector for which `seed` names one.
    fn compare_image(&self, name: &str, seed: impl Fn(u64) -> Option<u64>) -> Result<(), String> {
        let path = self.path(name);
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let mut image = OpenOptions::new().read(true).open(&path).map_err(failed)?;
        for (first, count) in pieces() {
            let mut bytes = sectors(count);
            image.read_exact(&mut bytes).map_err(failed)?;
            for (sector, found) in (first..).zip(bytes.chunks_exact(SECTOR_BYTES)) {
                if seed(sector).is_some_and(|seed| first_difference(found, sector, seed).is_some())
                {
                    return Err(format!("sector {sector} of {name} holds the wrong bytes"));
                }
            }
        }
        let length = image.metadata().map_err(failed)?.len();
        if length != SECTORS * SECTOR_BYTES as u64 {
            return Err(format!("{name} has become {length} bytes long"));
        }
        Ok(())
    }

    /// Where the image of the disk with this identity lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// First sector and number of sectors of each piece of a disk.
fn pieces() -> impl Iterator<Item = (u64, u64)> {
    let count = usize::try_from(PIECE).unwrap_or(1);
    (0..SECTORS)
        .step_by(count)
        .map(|first| (first, PIECE.min(SECTORS - first)))
}

/// Room for `count` sectors.
fn sectors(count: u64) -> Vec<u8> {
    let count = usize::try_from(count).unwrap_or_default();
    vec![0; count * SECTOR_BYTES]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn write(disks: &TestDisks, name: &str, first: u64, count: u64, seed: u64) {
        let mut bytes = sectors(count);
        fill(&mut bytes, first, seed);
        let image = OpenOptions::new()
            .write(true)
            .open(disks.path(name))
            .unwrap();
        image
            .write_all_at(&bytes, first * SECTOR_BYTES as u64)
            .unwrap();
    }

    #[test]
    fn only_the_right_bytes_in_the_right_place_are_accepted() {
        let disks = TestDisks::new().unwrap();
        assert!(
            disks
                .compare()
                .unwrap_err()
                .contains("sector 2048 of ringway-writable")
        );
        write(
            &disks,
            WRITABLE,
            WRITTEN.start,
            WRITTEN.end - WRITTEN.start,
            GUEST_SEED,
        );
        assert_eq!(disks.compare(), Ok(()));
        write(&disks, WRITABLE, SCRATCH.start, 1, 3);
        assert_eq!(disks.compare(), Ok(()));
        write(&disks, WRITABLE, SCRATCH.end, 1, 3);
        assert!(
            disks
                .compare()
                .unwrap_err()
                .contains("sector 16384 of ringway-writable")
        );
        write(&disks, WRITABLE, SCRATCH.end, 1, HOST_SEED);
        write(&disks, READ_ONLY, 5, 1, GUEST_SEED);
        assert!(
            disks
                .compare()
                .unwrap_err()
                .contains("sector 5 of ringway-read-only")
        );
    }
}
