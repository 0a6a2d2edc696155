//! The interrupt descriptor table and the code that each vector enters.
//!
//! Each vector has a stub of 8 bytes that pushes what tells it apart and goes on to a common part,
//! which saves the registers and calls Rust. Intel SDM vol. 3, 6.12 and 6.14.

use core::arch::naked_asm;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable};

use super::gdt::ExceptionStack;
use super::trap_frame::TrapFrame;
use super::vector_numbers::FIRST_INTERRUPT;
use super::{exceptions, vectors};

const STUB_SIZE: u64 = 8;
/// The exceptions for which the processor pushes an error code (Intel SDM vol. 3, table 6-1; AMD
/// APM vol. 2, 8.2 for 29 and 30).
const WITH_ERROR_CODE: u32 = 1 << 8 | 0b11111 << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Fills and loads the table.
pub(super) fn init() {
    IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        set(&mut idt.divide_error, 0, None);
        set(&mut idt.debug, 1, None);
        set(
            &mut idt.non_maskable_interrupt,
            2,
            Some(ExceptionStack::NonMaskable),
        );
        set(&mut idt.breakpoint, 3, None);
        set(&mut idt.overflow, 4, None);
        set(&mut idt.bound_range_exceeded, 5, None);
        set(&mut idt.invalid_opcode, 6, None);
        set(&mut idt.device_not_available, 7, None);
        set(&mut idt.double_fault, 8, Some(ExceptionStack::DoubleFault));
        set(&mut idt.invalid_tss, 10, None);
        set(&mut idt.segment_not_present, 11, None);
        set(&mut idt.stack_segment_fault, 12, None);
        set(&mut idt.general_protection_fault, 13, None);
        set(&mut idt.page_fault, 14, Some(ExceptionStack::PageFault));
        set(&mut idt.x87_floating_point, 16, None);
        set(&mut idt.alignment_check, 17, None);
        set(
            &mut idt.machine_check,
            18,
            Some(ExceptionStack::MachineCheck),
        );
        set(&mut idt.simd_floating_point, 19, None);
        set(&mut idt.virtualization, 20, None);
        set(&mut idt.cp_protection_exception, 21, None);
        set(&mut idt.hv_injection_exception, 28, None);
        set(&mut idt.vmm_communication_exception, 29, None);
        set(&mut idt.security_exception, 30, None);
        for vector in FIRST_INTERRUPT..=u8::MAX {
            let entry: &mut Entry<HandlerFunc> = &mut idt[vector];
            set(entry, vector, None);
        }
        idt
    })
    .load();
}

fn set<F>(entry: &mut Entry<F>, vector: u8, stack: Option<ExceptionStack>) {
    // The stubs begin with an alignment, so the first one lies at the next multiple.
    let first = (stubs as *const ())
        .addr()
        .next_multiple_of(STUB_SIZE as usize) as u64;
    let stub = VirtAddr::new(first + u64::from(vector) * STUB_SIZE);
    // SAFETY: the stub takes the frame that the processor pushes for this vector, and returns with
    // `iretq`.
    let options = unsafe { entry.set_handler_addr(stub) };
    if let Some(stack) = stack {
        // SAFETY: the table has a stack for each of them, and no other vector uses it.
        unsafe { options.set_stack_index(stack as u16) };
    }
}

/// Goes where the vector belongs. Interrupts are off.
extern "sysv64" fn dispatch(frame: &TrapFrame) {
    let vector = frame.vector as u8;
    if vector < FIRST_INTERRUPT {
        exceptions::fatal(vector, frame);
    }
    vectors::dispatch(vector);
}

/// The stubs of all 256 vectors, one after the other. Not a function that can be called.
#[unsafe(naked)]
unsafe extern "sysv64" fn stubs() {
    naked_asm!(
        ".balign {size}",
        ".set ringway_vector, 0",
        ".rept 256",
        ".balign {size}",
        // `push` of a byte, whose longer form the assembler would take for half of them.
        ".byte 0x6a, ringway_vector",
        ".if ringway_vector < 32 && (({with_error_code} >> ringway_vector) & 1)",
        "jmp {common}",
        ".else",
        "jmp {without_error_code}",
        ".endif",
        ".set ringway_vector, ringway_vector + 1",
        ".endr",
        size = const STUB_SIZE,
        with_error_code = const WITH_ERROR_CODE,
        common = sym common,
        without_error_code = sym without_error_code,
    )
}

/// Puts 0 in the place of the error code, where the stub has pushed the vector, so that all frames
/// are alike.
#[unsafe(naked)]
unsafe extern "sysv64" fn without_error_code() {
    naked_asm!(
        "push [rsp]",
        "mov qword ptr [rsp + 8], 0",
        "jmp {common}",
        common = sym common,
    )
}

/// Saves the registers as a [`TrapFrame`] and calls [`dispatch`]. The processor aligned the stack
/// to 16 bytes and pushed five words, the stub two, this pushes fifteen: it is aligned again.
#[unsafe(naked)]
unsafe extern "sysv64" fn common() {
    naked_asm!(
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rsp",
        "call {dispatch}",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        dispatch = sym dispatch,
    )
}
