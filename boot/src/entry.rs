//! The entry points: 32-bit for a PVH loader, and from there long mode and Rust.
//!
//! The Xen "x86/HVM direct boot ABI" gives the state at the entry: 32-bit protected mode without
//! paging, flat segments, interrupts off, EBX holds the address of the start info.

use core::arch::naked_asm;
use core::ops::Range;

use crate::info::BootInfo;
use crate::page_tables::LEVEL_4;

unsafe extern "Rust" {
    /// The kernel, which defines this symbol. It is called once, on the boot stack.
    safe fn __ringway_kernel(info: BootInfo) -> !;
}

/// The page below the stack, which the kernel unmaps so that an overflow faults.
const GUARD_SIZE: usize = 4096;
/// Memory that is not used costs nothing. Builds without optimisation move large futures through
/// the stack.
const STACK_SIZE: usize = 512 << 10;

#[repr(C, align(4096))]
struct Stack([u8; GUARD_SIZE + STACK_SIZE]);

/// Only ever used through the stack pointer.
static mut STACK: Stack = Stack([0; GUARD_SIZE + STACK_SIZE]);

/// The stack that the kernel runs on. The page below its start is part of nothing else, for a
/// guard.
#[must_use]
pub fn boot_stack() -> Range<u64> {
    let bottom = (&raw const STACK).expose_provenance() as u64;
    bottom + GUARD_SIZE as u64..bottom + size_of::<Stack>() as u64
}

/// A null segment, 64-bit code, data (Intel SDM vol. 3, 3.4.5). The kernel loads its own table.
#[repr(C, align(8))]
struct Gdt([u64; 3]);

static GDT: Gdt = Gdt([0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);

/// The operand of `lgdt`.
#[repr(C, packed)]
struct GdtPointer {
    limit: u16,
    base: *const Gdt,
}

// SAFETY: the pointer is to a constant.
unsafe impl Sync for GdtPointer {}

static GDT_POINTER: GdtPointer = GdtPointer {
    limit: size_of::<Gdt>() as u16 - 1,
    base: &raw const GDT,
};

pvh::xen_elfnote_phys32_entry!(pvh_start);

/// From 32-bit mode without paging to long mode (Intel SDM vol. 3, 9.8.5).
#[unsafe(naked)]
unsafe extern "C" fn pvh_start() -> ! {
    naked_asm!(
        ".code32",
        "cli",
        "cld",
        "mov esp, offset {stack} + {stack_size}",
        "mov edi, ebx",
        // Physical address extension, then the tables.
        "mov eax, cr4",
        "or eax, 1 << 5",
        "mov cr4, eax",
        "mov eax, offset {level_4}",
        "mov cr3, eax",
        // Long mode, in the register EFER.
        "mov ecx, 0xc0000080",
        "rdmsr",
        "or eax, 1 << 8",
        "wrmsr",
        "mov eax, cr0",
        "or eax, 1 << 31",
        "mov cr0, eax",
        "lgdt [{gdt_pointer}]",
        // A far return loads the code segment and so enters 64-bit code.
        "push 0x08",
        "mov eax, offset {start}",
        "push eax",
        "retf",
        ".code64",
        stack = sym STACK,
        stack_size = const size_of::<Stack>(),
        level_4 = sym LEVEL_4,
        gdt_pointer = sym GDT_POINTER,
        start = sym long_mode_start,
    )
}

/// The first 64-bit code: flat data segments, the stack, and the start info as the argument.
#[unsafe(naked)]
unsafe extern "C" fn long_mode_start() -> ! {
    naked_asm!(
        "mov eax, 0x10",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "xor eax, eax",
        "mov fs, eax",
        "mov gs, eax",
        "lea rsp, [rip + {stack} + {stack_size}]",
        "xor ebp, ebp",
        "mov edi, edi",
        "call {start}",
        "ud2",
        stack = sym STACK,
        stack_size = const size_of::<Stack>(),
        start = sym rust_start,
    )
}

/// The ELF entry point, which some loaders want to exist. Nothing enters here: a loader that does
/// not know PVH would pass nothing that the kernel could use.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("2:", "cli", "hlt", "jmp 2b")
}

unsafe extern "C" fn rust_start(start_info: u32) -> ! {
    // SAFETY: the entry code passes on what the loader gave, the boot page tables map memory at its
    // physical addresses, and nothing has run before.
    let info = unsafe { BootInfo::read(start_info) };
    match info {
        Some(info) => __ringway_kernel(info),
        // There is no console yet to say more on.
        None => panic!("the loader passed no PVH start info"),
    }
}
