//! Segments, and the stacks of the exceptions that cannot trust the stack they come on.
//!
//! Intel SDM vol. 3, 6.14.5 (interrupt stack table). Each stack has an unmapped page below it.

use core::ops::Range;

use spin::Once;
use x86_64::PrivilegeLevel;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use crate::pure::memory::regions::PAGE_SIZE;

/// Who has a stack of its own in the interrupt stack table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExceptionStack {
    DoubleFault,
    NonMaskable,
    MachineCheck,
    /// A page fault comes on an exhausted stack when the stack overflows.
    PageFault,
}

/// How many stacks the exceptions have.
const EXCEPTION_STACKS: usize = 4;
const STACK_SIZE: usize = 32 << 10;

/// A stack with its guard page below it.
#[repr(C, align(4096))]
struct GuardedStack([u8; PAGE_SIZE as usize + STACK_SIZE]);

/// Only ever used through the stack pointer.
static mut STACKS: [GuardedStack; EXCEPTION_STACKS] =
    [const { GuardedStack([0; PAGE_SIZE as usize + STACK_SIZE]) }; EXCEPTION_STACKS];

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();

/// Loads the segments and the interrupt stack table.
pub(super) fn init() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        for (index, stack) in exception_stacks().enumerate() {
            tss.interrupt_stack_table[index] = VirtAddr::new(stack.end);
        }
        tss
    });
    let mut table = GlobalDescriptorTable::new();
    let code = table.append(Descriptor::kernel_code_segment());
    let data = table.append(Descriptor::kernel_data_segment());
    let tss = table.append(Descriptor::tss_segment(tss));
    GDT.call_once(|| table).load();
    // SAFETY: the selector is that of a 64-bit code segment like the present one.
    unsafe { CS::set_reg(code) };
    // SAFETY: the selector is that of a flat data segment.
    unsafe { SS::set_reg(data) };
    // SAFETY: long mode ignores this segment.
    unsafe { DS::set_reg(SegmentSelector::new(0, PrivilegeLevel::Ring0)) };
    // SAFETY: long mode ignores this segment.
    unsafe { ES::set_reg(SegmentSelector::new(0, PrivilegeLevel::Ring0)) };
    // SAFETY: the selector is that of the task state segment, which lives for ever.
    unsafe { load_tss(tss) };
}

/// Every stack of the interrupt stack table. The page below each is a guard.
pub(crate) fn exception_stacks() -> impl Iterator<Item = Range<u64>> {
    let first = (&raw const STACKS).expose_provenance() as u64;
    let size = size_of::<GuardedStack>() as u64;
    (0..EXCEPTION_STACKS as u64).map(move |index| {
        let bottom = first + index * size;
        bottom + PAGE_SIZE..bottom + size
    })
}
