//! Page tables with addresses that stay as they are: what may be done where, in pages of 2 MiB and
//! 4 KiB.
//!
//! Intel SDM vol. 3, 4.5. Pages of 1 GiB are not used: some hosts emulate processors that lack
//! them.

use core::ops::Range;

use x86_64::structures::paging::mapper::{MapToError, TranslateResult};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTableFlags, PhysFrame, Size2MiB,
    Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading and executing.
    Code,
    /// Reading.
    ReadOnly,
    /// Reading and writing.
    Data,
    /// Reading and writing device registers: not cached, not reordered.
    Device,
}

/// Why a range cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MapError {
    /// It is empty, wraps, begins or ends inside a page, or lies where no address can.
    #[error("not a range of pages")]
    BadRange,
    /// A part of it is mapped for something else.
    #[error("a part of the range is mapped for another use")]
    InUse,
    /// No memory for page tables is left.
    #[error("out of memory for page tables")]
    OutOfMemory,
}

/// The first address that has no place in the lower half of the address space.
const END: u64 = 1 << 47;

/// The page tables of an address space.
pub(crate) struct PageTables {
    tables: OffsetPageTable<'static>,
}

impl PageTables {
    /// Page tables that begin with `tables`.
    pub(crate) fn new(tables: OffsetPageTable<'static>) -> Self {
        Self { tables }
    }

    /// Maps `range` at its own addresses. What is mapped for the same use already, stays.
    pub(crate) fn map(
        &mut self,
        range: Range<u64>,
        access: Access,
        frames: &mut impl FrameAllocator<Size4KiB>,
    ) -> Result<(), MapError> {
        let whole_pages =
            range.start.is_multiple_of(Size4KiB::SIZE) && range.end.is_multiple_of(Size4KiB::SIZE);
        if range.is_empty() || range.end > END || !whole_pages {
            return Err(MapError::BadRange);
        }
        let mut address = range.start;
        while address < range.end {
            let large =
                address.is_multiple_of(Size2MiB::SIZE) && range.end - address >= Size2MiB::SIZE;
            if large && !self.has_small_pages(address) {
                self.map_page::<Size2MiB>(address, access, frames)?;
                address += Size2MiB::SIZE;
            } else {
                self.map_page::<Size4KiB>(address, access, frames)?;
                address += Size4KiB::SIZE;
            }
        }
        Ok(())
    }

    /// What may be done at `address`. `None`, if nothing is mapped there.
    pub(crate) fn access(&self, address: u64) -> Option<Access> {
        match self.tables.translate(VirtAddr::try_new(address).ok()?) {
            TranslateResult::Mapped { flags, .. } => Some(access_of(flags)),
            TranslateResult::NotMapped | TranslateResult::InvalidFrameAddress(_) => None,
        }
    }

    fn map_page<S: PageSize>(
        &mut self,
        address: u64,
        access: Access,
        frames: &mut impl FrameAllocator<Size4KiB>,
    ) -> Result<(), MapError>
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(address));
        let frame = PhysFrame::containing_address(PhysAddr::new(address));
        // SAFETY: the address is mapped to itself and was not mapped before, so that nothing that a
        // reference names changes.
        let mapped = unsafe { self.tables.map_to(page, frame, flags(access), frames) };
        match mapped {
            Ok(flush) => {
                // The processor does not remember that a page was not there.
                flush.ignore();
                Ok(())
            }
            Err(MapToError::FrameAllocationFailed) => Err(MapError::OutOfMemory),
            Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {
                if self.access(address) == Some(access) {
                    Ok(())
                } else {
                    Err(MapError::InUse)
                }
            }
        }
    }

    /// Whether the 2 MiB at `address` are divided into small pages.
    fn has_small_pages(&self, address: u64) -> bool {
        let address = VirtAddr::new(address);
        let offset = self.tables.phys_offset();
        let mut table = self.tables.level_4_table();
        for index in [address.p4_index(), address.p3_index()] {
            let entry = &table[index];
            if entry.is_unused() || entry.flags().contains(PageTableFlags::HUGE_PAGE) {
                return false;
            }
            let next = offset + entry.addr().as_u64();
            // SAFETY: the entry names a table of the tree, which is reached at the offset and lives
            // as long.
            table = unsafe { &*next.as_ptr() };
        }
        let entry = &table[address.p2_index()];
        !entry.is_unused() && !entry.flags().contains(PageTableFlags::HUGE_PAGE)
    }
}

fn flags(access: Access) -> PageTableFlags {
    let more = match access {
        Access::Code => PageTableFlags::empty(),
        Access::ReadOnly => PageTableFlags::NO_EXECUTE,
        Access::Data => PageTableFlags::NO_EXECUTE | PageTableFlags::WRITABLE,
        Access::Device => {
            PageTableFlags::NO_EXECUTE
                | PageTableFlags::WRITABLE
                | PageTableFlags::NO_CACHE
                | PageTableFlags::WRITE_THROUGH
        }
    };
    PageTableFlags::PRESENT | more
}

fn access_of(flags: PageTableFlags) -> Access {
    if !flags.contains(PageTableFlags::NO_EXECUTE) {
        Access::Code
    } else if flags.contains(PageTableFlags::NO_CACHE) {
        Access::Device
    } else if flags.contains(PageTableFlags::WRITABLE) {
        Access::Data
    } else {
        Access::ReadOnly
    }
}

#[cfg(test)]
#[expect(clippy::reversed_empty_ranges, reason = "such a range must be refused")]
mod tests {
    use super::*;
    use std::boxed::Box;
    use x86_64::structures::paging::PageTable;

    const KIB_4: u64 = 4 << 10;
    const MIB_2: u64 = 2 << 20;
    const GIB: u64 = 1 << 30;

    /// Physical memory for page tables: an arena that begins at the physical address 0x1000.
    struct Frames {
        arena: &'static mut [PageTable],
        used: usize,
    }

    const ARENA_START: u64 = 0x1000;

    // SAFETY: each frame is given out once.
    unsafe impl FrameAllocator<Size4KiB> for Frames {
        fn allocate_frame(&mut self) -> Option<PhysFrame> {
            let index = self.used as u64;
            self.used += 1;
            (self.used < self.arena.len())
                .then(|| PhysFrame::containing_address(PhysAddr::new(ARENA_START + index * KIB_4)))
        }
    }

    fn empty(frames: usize) -> (PageTables, Frames) {
        let arena: &'static mut [PageTable] =
            Box::leak((0..frames).map(|_| PageTable::new()).collect());
        let offset = VirtAddr::new(arena.as_ptr() as u64 - ARENA_START);
        let root = Box::leak(Box::new(PageTable::new()));
        // SAFETY: every frame that the allocator gives out lies in the arena, at this offset.
        let tables = unsafe { OffsetPageTable::new(root, offset) };
        (PageTables::new(tables), Frames { arena, used: 0 })
    }

    #[test]
    fn each_page_allows_what_it_was_mapped_for_and_nothing_around_it_is_mapped() {
        let (mut tables, mut frames) = empty(16);
        let layout = [Access::Code, Access::ReadOnly, Access::Data, Access::Device];
        for (index, access) in (1..).zip(layout) {
            tables
                .map(
                    index * 2 * KIB_4..(index * 2 + 1) * KIB_4,
                    access,
                    &mut frames,
                )
                .unwrap();
        }
        for (index, access) in (1..).zip(layout) {
            assert_eq!(tables.access(index * 2 * KIB_4), Some(access));
            assert_eq!(tables.access((index * 2 + 1) * KIB_4 - 1), Some(access));
            assert_eq!(tables.access((index * 2 + 1) * KIB_4), None);
        }
        assert_eq!(tables.access(0), None);
    }

    #[test]
    fn nothing_is_both_writable_and_executable() {
        for access in [Access::Code, Access::ReadOnly, Access::Data, Access::Device] {
            let flags = flags(access);
            let executable = !flags.contains(PageTableFlags::NO_EXECUTE);
            assert!(
                !(executable && flags.contains(PageTableFlags::WRITABLE)),
                "{access:?}"
            );
            assert_eq!(access_of(flags), access);
        }
    }

    #[test]
    fn addresses_stay_as_they_are() {
        let (mut tables, mut frames) = empty(16);
        tables
            .map(5 * GIB..5 * GIB + MIB_2 + KIB_4, Access::Data, &mut frames)
            .unwrap();
        for address in [5 * GIB, 5 * GIB + MIB_2 - 1, 5 * GIB + MIB_2 + 7] {
            let translated = tables
                .tables
                .translate_addr(VirtAddr::new(address))
                .unwrap();
            assert_eq!(translated.as_u64(), address);
        }
    }

    #[test]
    fn large_pages_are_used_where_they_fit() {
        let (mut tables, mut frames) = empty(16);
        tables
            .map(MIB_2 - KIB_4..GIB, Access::Data, &mut frames)
            .unwrap();
        assert_eq!(
            frames.used, 3,
            "levels 3 and 2, and level 1 for the first page alone"
        );
        tables
            .map(4 * GIB..8 * GIB, Access::Data, &mut frames)
            .unwrap();
        assert_eq!(frames.used, 3 + 4, "one table for each GiB");
    }

    #[test]
    fn mapping_again_is_allowed_for_the_same_use_alone() {
        let (mut tables, mut frames) = empty(16);
        tables
            .map(GIB..GIB + KIB_4, Access::Device, &mut frames)
            .unwrap();
        tables
            .map(GIB..GIB + 2 * MIB_2, Access::Device, &mut frames)
            .unwrap();
        tables
            .map(
                GIB + KIB_4..GIB + MIB_2 + KIB_4,
                Access::Device,
                &mut frames,
            )
            .unwrap();
        assert_eq!(tables.access(GIB + 2 * MIB_2 - 1), Some(Access::Device));
        let other = tables.map(GIB..GIB + KIB_4, Access::Data, &mut frames);
        assert_eq!(other, Err(MapError::InUse));
        let large = tables.map(GIB + MIB_2..GIB + 2 * MIB_2, Access::Data, &mut frames);
        assert_eq!(large, Err(MapError::InUse));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let (mut tables, mut frames) = empty(4);
        for range in [0..0, KIB_4..0, 1..KIB_4, 0..KIB_4 + 1, END..END + KIB_4] {
            assert_eq!(
                tables.map(range, Access::Data, &mut frames),
                Err(MapError::BadRange)
            );
        }
        assert_eq!(tables.access(u64::MAX), None);
    }

    #[test]
    fn running_out_of_frames_is_an_error() {
        let (mut tables, mut frames) = empty(2);
        let mapped = tables.map(GIB..GIB + KIB_4, Access::Data, &mut frames);
        assert_eq!(mapped, Err(MapError::OutOfMemory));
    }
}
