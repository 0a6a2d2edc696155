//! The kernel's own page tables.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::ops::Range;

use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags};
use x86_64::registers::model_specific::{Efer, EferFlags};
use x86_64::structures::paging::{FrameAllocator, OffsetPageTable, PageTable, PhysFrame, Size4KiB};
use x86_64::{PhysAddr, VirtAddr};

use crate::machine::interrupts::gdt;
use crate::machine::sync::IrqMutex;
use crate::pure::memory::page_tables::{Access, MapError, PageTables};
use crate::pure::memory::regions::PAGE_SIZE;

static TABLES: IrqMutex<Option<PageTables>> = IrqMutex::new(None);

/// Makes page tables for the image and the memory in `regions`, and switches to them.
///
/// Memory below the boot page tables' end must be on the heap already, for the tables.
///
/// # Errors
/// [`MapError`], if memory is short or a region makes no sense.
pub(crate) fn init(regions: impl Iterator<Item = Range<u64>>) -> Result<(), MapError> {
    let (root, frame) = new_table().ok_or(MapError::OutOfMemory)?;
    // SAFETY: memory is mapped at its physical addresses, before the switch and after it, and the
    // table is empty.
    let tables = unsafe { OffsetPageTable::new(root, VirtAddr::zero()) };
    let mut tables = PageTables::new(tables);

    let image = boot::image();
    let rodata = boot::rodata();
    tables.map(image.start..rodata.start, Access::Code, &mut HeapFrames)?;
    tables.map(rodata.clone(), Access::ReadOnly, &mut HeapFrames)?;
    let mut data = rodata.end;
    let guards = || stacks().map(|stack| stack.start - PAGE_SIZE);
    while let Some(guard) = guards().filter(|guard| *guard >= data).min() {
        map_unless_empty(&mut tables, data..guard)?;
        data = guard + PAGE_SIZE;
    }
    map_unless_empty(&mut tables, data..image.end)?;
    for region in regions {
        tables.map(region, Access::Data, &mut HeapFrames)?;
    }

    // SAFETY: the processor has the flag, as the caller has checked.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE)) };
    // SAFETY: the new tables map the running code, the stack, and all memory that is in use, at the
    // same addresses as the old ones.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    // SAFETY: only writes to read-only pages are affected, and the kernel makes none.
    unsafe { Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT)) };
    TABLES.with(|current| *current = Some(tables));
    Ok(())
}

/// Maps `range` at its own addresses, for ever.
///
/// # Errors
/// [`MapError`]; [`MapError::OutOfMemory`] before [`init`].
pub(crate) fn map(range: Range<u64>, access: Access) -> Result<(), MapError> {
    TABLES.with(|tables| {
        let tables = tables.as_mut().ok_or(MapError::OutOfMemory)?;
        tables.map(range, access, &mut HeapFrames)
    })
}

/// Every stack. The page below each is its guard.
pub(crate) fn stacks() -> impl Iterator<Item = Range<u64>> {
    gdt::exception_stacks().chain([boot::boot_stack()])
}

fn map_unless_empty(tables: &mut PageTables, range: Range<u64>) -> Result<(), MapError> {
    if range.is_empty() {
        Ok(())
    } else {
        tables.map(range, Access::Data, &mut HeapFrames)
    }
}

/// Page tables from the heap. They are never given back.
struct HeapFrames;

// SAFETY: each frame is an allocation of its own.
unsafe impl FrameAllocator<Size4KiB> for HeapFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        new_table().map(|(_, frame)| frame)
    }
}

/// An empty page table and the frame it lies in.
fn new_table() -> Option<(&'static mut PageTable, PhysFrame)> {
    let layout = Layout::new::<PageTable>();
    // SAFETY: the layout is not empty.
    let table = unsafe { alloc_zeroed(layout) }.cast::<PageTable>();
    // SAFETY: the table is exclusive, zeroed, which is an empty table, and never given back.
    let table = unsafe { table.as_mut() }?;
    let frame = PhysFrame::containing_address(PhysAddr::new((&raw const *table).addr() as u64));
    Some((table, frame))
}
