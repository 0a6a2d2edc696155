//! A part of a file as memory.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Where mappings begin in a file, unless its pages are huge.
const PAGE: u64 = 4096;

/// The type of the file system whose pages are (Linux, `include/uapi/linux/magic.h`).
const HUGETLBFS: u64 = 0x9584_58f6;

/// Memory that is shared with whoever else has the file, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    /// Of whole pages.
    length: usize,
    /// Where the part ends.
    end: usize,
    /// Where the part begins that was asked for.
    start: usize,
}

#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
// SAFETY: the memory belongs to no thread, and is reached by copies and atomics alone.
unsafe impl Send for Mapping {}
#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
// SAFETY: likewise.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes, not zero, from byte `offset` of a file on.
    ///
    /// # Errors
    /// A regular file is shorter than that; what the system says otherwise.
    pub(crate) fn new(
        file: impl AsFd,
        offset: u64,
        length: u64,
        access: ProtFlags,
    ) -> io::Result<Self> {
        let outside = || io::Error::other("the mapping lies outside the file");
        let end = offset.checked_add(length).ok_or_else(outside)?;
        let status = fstat(&file)?;
        // Memory of the kernel's own has no length.
        let regular = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        if length == 0 || regular && end > u64::try_from(status.st_size).unwrap_or(0) {
            return Err(outside());
        }
        let page = page_of(&file)?;
        let start = offset % page;
        let end = length.checked_add(start).ok_or_else(outside)?;
        let whole = end.checked_next_multiple_of(page).ok_or_else(outside)?;
        let whole = usize::try_from(whole)
            .ok()
            .filter(|len| isize::try_from(*len).is_ok());
        let whole = whole.ok_or_else(outside)?;
        #[expect(unsafe_code, reason = "the system maps memory")]
        // SAFETY: the system finds a place where nothing is.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                whole,
                access,
                // The owner of huge pages has reserved them.
                MapFlags::SHARED | MapFlags::NORESERVE,
                file,
                offset - start,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(outside)?;
        Ok(Self {
            base,
            length: whole,
            // Neither is more than the whole.
            end: end as usize,
            start: start as usize,
        })
    }

    /// Where byte `offset` of the part is, if it is inside.
    pub(crate) fn at(&self, offset: u64) -> Option<NonNull<u8>> {
        let inside = usize::try_from(offset).ok()?.checked_add(self.start)?;
        if inside >= self.end {
            return None;
        }
        #[expect(unsafe_code, reason = "a pointer into the mapping")]
        // SAFETY: it lies inside the mapping.
        Some(unsafe { self.base.add(inside) })
    }

    /// The number at byte `offset`, if it is inside and aligned.
    pub(crate) fn word(&self, offset: u64) -> Option<&AtomicU64> {
        let first = self.at(offset)?.cast::<AtomicU64>();
        self.at(offset.checked_add(7)?)?;
        if !first.is_aligned() {
            return None;
        }
        #[expect(unsafe_code, reason = "memory that others write, as a number")]
        // SAFETY: it lies inside the mapping, which is readable and writable (that of a journal is)
        // and outlives the reference, is aligned, and no other reference but such ones is made.
        Some(unsafe { first.as_ref() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the system takes the memory back")]
        // SAFETY: it is this value's, and nothing points into it any more.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok(), "a mapping is there until it is dropped");
    }
}

/// The size of the pages of a file.
fn page_of(file: impl AsFd) -> io::Result<u64> {
    let system = fstatfs(file)?;
    let size = u64::try_from(system.f_bsize).ok();
    let huge = size.filter(|&size| system.f_type as u64 == HUGETLBFS && size >= PAGE);
    Ok(huge.unwrap_or(PAGE))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn part_of_a_huge_page_is_mapped_and_unmapped() {
        let name = "vduse-huge.";
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
        let Ok(file) = memfd_create(name, flags) else {
            // A kernel without huge pages.
            return;
        };
        let page = fstat(&file).unwrap().st_blksize as u64;
        File::from(file.try_clone().unwrap())
            .set_len(2 * page)
            .unwrap();
        let mapping = Mapping::new(&file, page + PAGE, PAGE, ProtFlags::READ).unwrap();
        assert!(mapping.at(PAGE - 1).is_some());
        assert!(mapping.at(PAGE).is_none());
        drop(mapping);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains(name), "{maps}");
    }
}
