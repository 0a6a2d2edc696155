//! Where the data of a simulated disk are: memory in extents.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use spin::{Mutex, MutexGuard, Once};
use vdpa::Platform;

use crate::CreateError;

pub use vdpa::blk::SECTOR_LEN;

/// The largest disk; the list of extents grows with it.
const CAPACITY_MAX: u64 = 64 << 30;
/// How much memory is taken at once.
const EXTENT_LEN: usize = 64 * 1024;
/// Such a piece.
type Extent = [u8; EXTENT_LEN];
/// What is read where nothing was written. Constants lie in the image of a program, and this does
/// not.
static ZEROES: Once<[u8; 4096]> = Once::new();

/// When the memory of a disk is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// With the first write to each part of it, so that an unused disk costs nothing. A write that
    /// finds no memory fails. What is discarded is given back.
    #[default]
    Sparse,
    /// When it is made, for good.
    Plain,
}

/// A disk in memory, all zeroes at first. Devices share it by its `Arc`.
pub struct RamDisk {
    capacity: u64,
    contents: Mutex<Contents>,
}

/// The memory does not suffice, or the range does not lie on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The range does not lie on the disk.
    #[error("the range does not lie on the disk")]
    OutOfRange,
    /// Memory is short.
    #[error("out of memory")]
    OutOfMemory,
}

/// The bytes of a disk. Callers have checked their ranges.
pub(super) struct Contents {
    storage: Storage,
    /// Whose memory it takes no more of than simulated devices may have.
    platform: Option<Arc<dyn Platform>>,
    /// Up to the last that was ever there.
    extents: Vec<Option<Box<Extent>>>,
}

impl RamDisk {
    /// A disk of so many bytes, in whole sectors.
    ///
    /// # Errors
    /// [`CreateError::BadCapacity`]; [`CreateError::OutOfMemory`], if all of it is to be there at
    /// once.
    pub fn new(capacity: u64, storage: Storage) -> Result<Arc<Self>, CreateError> {
        Self::within(None, capacity, storage)
    }

    /// The same within what `platform` leaves to simulated devices.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn within(
        platform: Option<Arc<dyn Platform>>,
        capacity: u64,
        storage: Storage,
    ) -> Result<Arc<Self>, CreateError> {
        if capacity == 0 || capacity > CAPACITY_MAX || !capacity.is_multiple_of(SECTOR_LEN) {
            return Err(CreateError::BadCapacity);
        }
        let mut contents = Contents {
            storage,
            platform,
            extents: Vec::new(),
        };
        if storage == Storage::Plain {
            contents
                .fill(capacity)
                .map_err(|_| CreateError::OutOfMemory)?;
        }
        Ok(Arc::new(Self {
            capacity,
            contents: Mutex::new(contents),
        }))
    }

    /// The size in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The bytes of memory that writes may still take.
    #[must_use]
    pub fn promised(&self) -> u64 {
        self.capacity.saturating_sub(self.allocated() as u64)
    }

    /// The bytes of memory that it takes now.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.contents.lock().extents.iter().flatten().count() * EXTENT_LEN
    }

    /// Copies bytes out of the disk.
    ///
    /// # Errors
    /// [`DiskError::OutOfRange`].
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len())?;
        let contents = self.contents.lock();
        let mut done = 0;
        while done < bytes.len() {
            let stretch = contents.stretch(offset + done as u64, bytes.len() - done);
            bytes[done..][..stretch.len()].copy_from_slice(stretch);
            done += stretch.len();
        }
        Ok(())
    }

    /// Copies bytes onto the disk, an image for instance.
    ///
    /// # Errors
    /// [`DiskError`]; what lies before the place where memory was short has been written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len())?;
        let mut contents = self.contents.lock();
        let mut done = 0;
        while done < bytes.len() {
            let stretch = contents.stretch_mut(offset + done as u64, bytes.len() - done)?;
            stretch.copy_from_slice(&bytes[done..][..stretch.len()]);
            done += stretch.len();
        }
        Ok(())
    }

    /// The contents, for a turn of a worker.
    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock()
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), DiskError> {
        let end = offset
            .checked_add(len as u64)
            .ok_or(DiskError::OutOfRange)?;
        if end <= self.capacity {
            Ok(())
        } else {
            Err(DiskError::OutOfRange)
        }
    }
}

impl Contents {
    /// The bytes from `offset` on, at least one and at most `len`.
    #[inline]
    pub(super) fn stretch(&self, offset: u64, len: usize) -> &[u8] {
        let (index, start) = place(offset);
        match self.extents.get(index) {
            Some(Some(extent)) => &extent[start..][..len.min(EXTENT_LEN - start)],
            _ => {
                let zeroes = ZEROES.call_once(|| [0; 4096]);
                &zeroes[..len.min(EXTENT_LEN - start).min(zeroes.len())]
            }
        }
    }

    /// As [`Contents::stretch`], to be written. Takes the memory if it is not there.
    #[inline]
    pub(super) fn stretch_mut(&mut self, offset: u64, len: usize) -> Result<&mut [u8], DiskError> {
        let (index, start) = place(offset);
        if !matches!(self.extents.get(index), Some(Some(_))) {
            self.take(index)?;
        }
        let extent = self.extents[index].as_mut();
        let extent = extent.expect("it is there, or has just been taken");
        Ok(&mut extent[start..][..len.min(EXTENT_LEN - start)])
    }

    /// Makes `len` bytes from `offset` on zero.
    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        let mut done = 0;
        while done < len {
            let (index, start) = place(offset + done);
            let room = EXTENT_LEN - start;
            let part = usize::try_from(len - done).map_or(room, |rest| rest.min(room));
            match self.extents.get_mut(index) {
                Some(extent) if part == EXTENT_LEN && self.storage == Storage::Sparse => {
                    *extent = None;
                }
                Some(Some(extent)) => extent[start..][..part].fill(0),
                _ => {}
            }
            done += part as u64;
        }
    }

    fn fill(&mut self, capacity: u64) -> Result<(), DiskError> {
        let (last, _) = place(capacity - 1);
        (0..=last).try_for_each(|index| self.take(index))
    }

    /// Takes the memory of an extent.
    #[cold]
    fn take(&mut self, index: usize) -> Result<(), DiskError> {
        let more = (index + 1).saturating_sub(self.extents.len());
        let list = more.saturating_mul(2 * size_of::<Option<Box<Extent>>>());
        if let Some(platform) = &self.platform
            && platform.memory_left() < EXTENT_LEN.saturating_add(list) as u64
        {
            return Err(DiskError::OutOfMemory);
        }
        let extent = zeroed()?;
        if more > 0 {
            self.extents
                .try_reserve(more)
                .map_err(|_| DiskError::OutOfMemory)?;
            self.extents.resize_with(index + 1, || None);
        }
        self.extents[index] = Some(extent);
        Ok(())
    }
}

/// The extent that a byte lies in, and where.
#[inline]
fn place(offset: u64) -> (usize, usize) {
    let len = EXTENT_LEN as u64;
    let index = usize::try_from(offset / len).expect("the largest disk has few extents");
    let start = usize::try_from(offset % len).expect("below the length of an extent");
    (index, start)
}

/// A zeroed extent, or an error where `vec!` would end the program.
fn zeroed() -> Result<Box<Extent>, DiskError> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(EXTENT_LEN)
        .map_err(|_| DiskError::OutOfMemory)?;
    bytes.resize(EXTENT_LEN, 0);
    Ok(bytes
        .into_boxed_slice()
        .try_into()
        .expect("it has this length"))
}

impl fmt::Debug for RamDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamDisk")
            .field("capacity", &self.capacity)
            .field("allocated", &self.allocated())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_disk_takes_memory_where_it_is_written_and_gives_back_what_is_zeroed() {
        let disk = RamDisk::new(1 << 30, Storage::Sparse).unwrap();
        assert_eq!(disk.allocated(), 0);
        disk.write((512 << 20) - 1, &[7; 2]).unwrap();
        assert_eq!(disk.allocated(), 2 * EXTENT_LEN);
        let mut bytes = [1; 4];
        disk.read((512 << 20) - 2, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 7, 7, 0]);
        disk.contents().zero((512 << 20) - 1, EXTENT_LEN as u64 + 1);
        assert_eq!(disk.allocated(), EXTENT_LEN);
        disk.read((512 << 20) - 2, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4]);
    }

    #[test]
    fn a_write_takes_no_memory_that_is_not_for_simulated_devices() {
        let platform = vdpa::testing::FakePlatform::new();
        let shared: Arc<dyn Platform> = Arc::<vdpa::testing::FakePlatform>::clone(&platform);
        let disk = RamDisk::within(Some(shared), 1 << 30, Storage::Sparse).unwrap();
        disk.write(0, &[7]).unwrap();
        platform.leave_memory(EXTENT_LEN as u64 - 1);
        assert_eq!(disk.write(1 << 20, &[7]), Err(DiskError::OutOfMemory));
        disk.write(1, &[7]).unwrap();
        assert_eq!(disk.promised(), (1 << 30) - EXTENT_LEN as u64);
    }

    #[test]
    fn a_plain_disk_has_all_its_memory_for_good() {
        let disk = RamDisk::new(3 * EXTENT_LEN as u64 + 512, Storage::Plain).unwrap();
        assert_eq!(disk.allocated(), 4 * EXTENT_LEN);
        disk.contents().zero(0, disk.capacity());
        assert_eq!(disk.allocated(), 4 * EXTENT_LEN);
    }

    #[test]
    fn what_does_not_lie_on_the_disk_is_refused() {
        let disk = RamDisk::new(1024, Storage::Sparse).unwrap();
        assert_eq!(disk.write(1023, &[0; 2]), Err(DiskError::OutOfRange));
        assert_eq!(disk.read(u64::MAX, &mut [0; 2]), Err(DiskError::OutOfRange));
        assert_eq!(disk.write(1024, &[]), Ok(()));
        for capacity in [0, 100, CAPACITY_MAX + 512] {
            let refused = RamDisk::new(capacity, Storage::Sparse).err();
            assert_eq!(refused, Some(CreateError::BadCapacity), "{capacity}");
        }
    }
}
