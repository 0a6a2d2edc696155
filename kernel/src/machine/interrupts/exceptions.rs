//! Exceptions: what the processor found, said in words. None is survived.

use core::fmt;

use x86_64::registers::control::Cr2;
use x86_64::structures::idt::PageFaultErrorCode;

use super::trap_frame::TrapFrame;
use crate::machine::memory::stacks;
use crate::machine::panic::die;
use crate::pure::memory::regions::PAGE_SIZE;

const PAGE_FAULT: u8 = 14;

/// Ends the kernel with a message about the exception.
pub(super) fn fatal(vector: u8, frame: &TrapFrame) -> ! {
    die(
        format_args!("exception: {}\n{frame}", Description { vector, frame }),
        frame.rsp,
    )
}

struct Description<'a> {
    vector: u8,
    frame: &'a TrapFrame,
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vector, frame } = *self;
        let rip = frame.rip;
        if vector == PAGE_FAULT {
            let address = Cr2::read_raw();
            let error = PageFaultErrorCode::from_bits_truncate(frame.error_code);
            let access = if error.contains(PageFaultErrorCode::INSTRUCTION_FETCH) {
                "execution"
            } else if error.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
                "write"
            } else {
                "read"
            };
            let reason = if is_guard(address) {
                "stack overflow"
            } else if address < PAGE_SIZE {
                "null pointer"
            } else if error.contains(PageFaultErrorCode::PROTECTION_VIOLATION) {
                "not allowed there"
            } else {
                "nothing mapped there"
            };
            write!(
                f,
                "page fault, {access} at {address:#x} by {rip:#x}: {reason}"
            )
        } else {
            let name = name(vector);
            write!(
                f,
                "{name} (vector {vector}, error code {:#x}) at {rip:#x}",
                frame.error_code
            )
        }
    }
}

/// Whether the address lies in the page below a stack.
fn is_guard(address: u64) -> bool {
    stacks().any(|stack| (stack.start - PAGE_SIZE..stack.start).contains(&address))
}

/// Intel SDM vol. 3, table 6-1.
fn name(vector: u8) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack-segment fault",
        13 => "general protection fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point exception",
        20 => "virtualization exception",
        21 => "control protection exception",
        28 => "hypervisor injection exception",
        29 => "VMM communication exception",
        30 => "security exception",
        _ => "reserved exception",
    }
}
