//! The client's memory as the card reaches it: files that the client passes and this program maps,
//! which come and go while the card runs.
//!
//! Memory without a file is known, so that the client may have any, but cannot be reached: asking
//! the client for each byte of a ring (DMA_READ, DMA_WRITE) would make a card that no driver can
//! wait for.

use std::collections::BTreeMap;
use std::fs::File;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use vfio_user::DmaMapFlags;
use virtq::DmaAddr;
use virtq::device::{Access, Fault, Memory, Piece};
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionError};

/// The most ranges that are known at a time.
pub(super) const MAPPINGS_MAX: usize = 1024;

/// Everything that the client has made known.
#[derive(Debug)]
pub(super) struct ClientMemory {
    mappings: Mutex<BTreeMap<u64, Mapping>>,
    /// Grows with each mapping that goes.
    generation: AtomicU64,
    complaint: Once,
}

/// A range of the client's addresses. The key in the map is its first address.
#[derive(Debug)]
struct Mapping {
    last: u64,
    size: u64,
    flags: DmaMapFlags,
    /// `None` if it cannot be reached.
    region: Option<MmapRegion>,
}

impl ClientMemory {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            mappings: Mutex::default(),
            generation: AtomicU64::new(0),
            complaint: Once::new(),
        }
    }

    /// Makes a range known, and maps it if it comes with a file.
    ///
    /// # Errors
    ///
    /// `INVAL` for a range that cannot be, `EXIST` for one that overlaps another, `NOSPC` for one
    /// too many, `PERM` for a file that may shrink under the mapping, and what mapping gives.
    pub(super) fn map(
        &self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> Result<(), Errno> {
        let last = size
            .checked_sub(1)
            .and_then(|less| address.checked_add(less));
        let last = last.ok_or(Errno::INVAL)?;
        if flags.is_empty() || !DmaMapFlags::READ_WRITE.contains(flags) {
            return Err(Errno::INVAL);
        }
        let mut mappings = self.lock();
        if mappings.len() >= MAPPINGS_MAX {
            return Err(Errno::NOSPC);
        }
        // They do not overlap, so the last one that begins before the end is the only one that may
        // reach in.
        let before = mappings.range(..=last).next_back();
        if before.is_some_and(|(_, other)| other.last >= address) {
            return Err(Errno::EXIST);
        }
        let region = file.map(|file| map_file(file, offset, size, flags));
        let mapping = Mapping {
            last,
            size,
            flags,
            region: region.transpose()?,
        };
        mappings.insert(address, mapping);
        Ok(())
    }

    /// Forgets a range. Nothing of it is reached afterwards.
    ///
    /// # Errors
    ///
    /// `NOENT` if it is none that was made known, exactly.
    pub(super) fn unmap(&self, address: u64, size: u64) -> Result<(), Errno> {
        let mut mappings = self.lock();
        let known = mappings.get(&address);
        if known.is_none_or(|mapping| mapping.size != size) {
            return Err(Errno::NOENT);
        }
        let gone = mappings.remove(&address);
        self.generation.fetch_add(1, Ordering::Release);
        drop(gone);
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn unmap_all(&self) {
        let gone = std::mem::take(&mut *self.lock());
        self.generation.fetch_add(1, Ordering::Release);
        drop(gone);
    }

    /// The usual mistake is not visible from inside the machine.
    fn complain_once(&self, addr: DmaAddr) {
        self.complaint.call_once(|| {
            eprintln!(
                "ifcvf-card: the guest's memory at {:#x} is not shared with the card; give the machine \
                 -object memory-backend-memfd,share=on",
                addr.0
            );
        });
    }

    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Mapping>> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps `size` bytes of `file`.
fn map_file(file: File, offset: u64, size: u64, flags: DmaMapFlags) -> Result<MmapRegion, Errno> {
    // A file that became shorter would end this program at the next access.
    if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
        return Err(Errno::PERM);
    }
    // Nor must the mapping be longer than it.
    let end = offset.checked_add(size).ok_or(Errno::INVAL)?;
    let length = fstat(&file)?.st_size;
    if u64::try_from(length).is_ok_and(|length| length < end) {
        return Err(Errno::INVAL);
    }
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    let mut protection = ProtFlags::READ;
    if flags.contains(DmaMapFlags::WRITE) {
        protection |= ProtFlags::WRITE;
    }
    let sharing = MapFlags::SHARED | MapFlags::NORESERVE;
    let region = MmapRegion::build(
        Some(FileOffset::new(file, offset)),
        size,
        protection.bits().cast_signed(),
        sharing.bits().cast_signed(),
    );
    region.map_err(|error| match error {
        MmapRegionError::Mmap(error) => Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
        _ => Errno::INVAL,
    })
}

#[expect(
    unsafe_code,
    reason = "where the client's memory is, only this module knows"
)]
// SAFETY: a piece starts at the address asked for and ends inside a mapping that has the access.
// The mapping stays until `unmap`, after which the generation is another; the one thread that calls
// `unmap` is the one that lets the card work, so none of its operations on a ring is under way
// then, and each begins with a look at the generation. The file cannot shrink under the mapping,
// and nothing else here refers to that memory.
unsafe impl Memory for ClientMemory {
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        let mappings = self.lock();
        let found = mappings.range(..=addr.0).next_back();
        let (first, mapping) = found
            .filter(|(_, mapping)| addr.0 <= mapping.last)
            .ok_or(Fault::NoMapping)?;
        let needed = match access {
            Access::Read => DmaMapFlags::READ,
            Access::Write => DmaMapFlags::WRITE,
        };
        if !mapping.flags.contains(needed) {
            return Err(Fault::Permission);
        }
        let Some(region) = &mapping.region else {
            self.complain_once(addr);
            return Err(Fault::NoMapping);
        };
        let start = NonNull::new(region.as_ptr()).ok_or(Fault::NoMapping)?;
        let offset = addr.0 - first;
        let left = u32::try_from(mapping.size - offset).unwrap_or(u32::MAX);
        let offset = usize::try_from(offset).map_err(|_| Fault::NoMapping)?;
        Ok(Piece {
            addr,
            // SAFETY: the offset is below the mapping's length.
            ptr: unsafe { start.add(offset) },
            len: len.min(left),
        })
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    const PAGE: u64 = 4096;

    fn file(pages: u64, seals: SealFlags) -> File {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, pages * PAGE).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file.into()
    }

    fn sealed(pages: u64) -> Option<File> {
        Some(file(pages, SealFlags::SHRINK))
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        let memory = ClientMemory::new();
        let map =
            |flags, offset, address, size, file| memory.map(flags, offset, address, size, file);
        let both = DmaMapFlags::READ_WRITE;
        assert_eq!(map(both, 0, 0, 0, sealed(1)), Err(Errno::INVAL));
        assert_eq!(map(both, 0, u64::MAX, 2, None), Err(Errno::INVAL));
        assert_eq!(map(both, 0, 0, 2 * PAGE, sealed(1)), Err(Errno::INVAL));
        assert_eq!(map(both, u64::MAX, 0, PAGE, sealed(1)), Err(Errno::INVAL));
        assert_eq!(map(both, 1, 0, PAGE, sealed(2)), Err(Errno::INVAL));
        assert_eq!(map(both, 0, 0, u64::MAX, sealed(1)), Err(Errno::INVAL));
        let none = DmaMapFlags::empty();
        assert_eq!(map(none, 0, 0, PAGE, sealed(1)), Err(Errno::INVAL));
        let unknown = DmaMapFlags::from_bits_retain(9);
        assert_eq!(map(unknown, 0, 0, PAGE, sealed(1)), Err(Errno::INVAL));
        let may_shrink = Some(file(1, SealFlags::empty()));
        assert_eq!(map(both, 0, 0, PAGE, may_shrink), Err(Errno::PERM));
        assert_eq!(map(both, 0, 0, PAGE, sealed(1)), Ok(()));
    }

    #[test]
    fn ranges_do_not_overlap() {
        let memory = ClientMemory::new();
        let map = |address, size| memory.map(DmaMapFlags::READ_WRITE, 0, address, size, None);
        assert_eq!(map(2 * PAGE, 2 * PAGE), Ok(()));
        assert_eq!(map(u64::MAX - 9, 10), Ok(()));
        for (address, size) in [
            (2 * PAGE, 2 * PAGE),
            (PAGE, PAGE + 1),
            (3 * PAGE, PAGE),
            (4 * PAGE - 1, 1),
            (0, 9 * PAGE),
            (u64::MAX, 1),
        ] {
            assert_eq!(map(address, size), Err(Errno::EXIST), "{address:#x}");
        }
        assert_eq!(map(PAGE, PAGE), Ok(()));
        assert_eq!(map(4 * PAGE, PAGE), Ok(()));
    }

    #[test]
    fn only_what_was_mapped_is_unmapped_and_then_out_of_reach() {
        let memory = ClientMemory::new();
        let both = DmaMapFlags::READ_WRITE;
        memory.map(both, PAGE, 8 * PAGE, PAGE, sealed(2)).unwrap();
        let find = || memory.translate(DmaAddr(9 * PAGE - 4), 16, Access::Write);
        let piece = find().unwrap();
        assert_eq!((piece.addr, piece.len), (DmaAddr(9 * PAGE - 4), 4));
        for (address, size) in [(8 * PAGE, 2 * PAGE), (9 * PAGE, PAGE), (0, 0)] {
            assert_eq!(memory.unmap(address, size), Err(Errno::NOENT));
        }
        let before = memory.generation();
        memory.unmap(8 * PAGE, PAGE).unwrap();
        assert_ne!(memory.generation(), before);
        assert_eq!(find(), Err(Fault::NoMapping));
        assert_eq!(memory.unmap(8 * PAGE, PAGE), Err(Errno::NOENT));
    }

    #[test]
    fn permissions_hold_and_memory_without_a_file_is_out_of_reach() {
        let memory = ClientMemory::new();
        memory
            .map(DmaMapFlags::READ, 0, 0, PAGE, sealed(1))
            .unwrap();
        memory
            .map(DmaMapFlags::READ_WRITE, 0, PAGE, PAGE, None)
            .unwrap();
        let find = |addr, access| {
            memory
                .translate(DmaAddr(addr), 1, access)
                .map(|piece| piece.len)
        };
        assert_eq!(find(0, Access::Read), Ok(1));
        assert_eq!(find(0, Access::Write), Err(Fault::Permission));
        assert_eq!(find(PAGE, Access::Read), Err(Fault::NoMapping));
        memory.unmap_all();
        assert_eq!(find(0, Access::Read), Err(Fault::NoMapping));
    }

    #[test]
    fn there_is_room_for_a_bounded_number() {
        let memory = ClientMemory::new();
        let map = |number: u64| memory.map(DmaMapFlags::READ, 0, number * PAGE, PAGE, None);
        for number in 0..MAPPINGS_MAX as u64 {
            map(number).unwrap();
        }
        assert_eq!(map(MAPPINGS_MAX as u64), Err(Errno::NOSPC));
        memory.unmap(0, PAGE).unwrap();
        assert_eq!(map(0), Ok(()));
    }
}
