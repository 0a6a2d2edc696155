//! The entry points: 32-bit for a PVH loader, and from there long mode and Rust.
//!
//! The Xen "x86/HVM direct boot ABI" gives the state at the entry: 32-bit protected mode without
//! paging, flat segments, interrupts off, EBX holds the address of the start info.

use core::arch::naked_asm;
use core::ops::Range;
use core::ptr::with_exposed_provenance;
use core::slice;

use crate::info::{BootInfo, PhysicalMemory};
use crate::page_tables::{
    IDENTITY_MAPPED, LARGE_PAGE, LARGE_PAGE_SIZE, LEVEL_2, LEVEL_3, LEVEL_4, TABLE,
};

unsafe extern "Rust" {
    /// The kernel, which defines this symbol. It is called once, on the boot stack.
    safe fn __ringway_kernel(info: BootInfo, memory: &BootMemory) -> !;
}

/// Physical memory as the boot page tables map it, for as long as these are in use.
#[derive(Debug)]
pub struct BootMemory(());

impl PhysicalMemory for BootMemory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        if address == 0 || end > IDENTITY_MAPPED {
            return None;
        }
        // SAFETY: the boot page tables map the range, at any address something can be read, and
        // nothing writes what the loader and the firmware left while it is read.
        Some(unsafe { slice::from_raw_parts(with_exposed_provenance(address as usize), length) })
    }
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

/// What a processor without 64-bit code gets to say, on the first serial port.
static NO_LONG_MODE: [u8; 56] = *b"the processor has no long mode: a 64-bit one is needed\r\n";

/// The I/O port of QEMU's `isa-debug-exit`, and the value with which QEMU ends as after a panic:
/// code 101.
const DEBUG_EXIT: u16 = 0xf4;
const PANICKED: u8 = 0x10 + 101;

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
        // CPUID is there if the flag 21 can be changed (Intel SDM vol. 1, 20.1), and names long
        // mode (vol. 2).
        "pushfd",
        "pop eax",
        "mov ecx, eax",
        "xor eax, 1 << 21",
        "push eax",
        "popfd",
        "pushfd",
        "pop eax",
        "xor eax, ecx",
        "test eax, 1 << 21",
        "jz {without_long_mode}",
        "mov eax, 0x80000000",
        "cpuid",
        "cmp eax, 0x80000001",
        "jb {without_long_mode}",
        "mov eax, 0x80000001",
        "cpuid",
        "test edx, 1 << 29",
        "jz {without_long_mode}",
        // The page tables. The addresses run over after the last page of 4 GiB.
        "mov ecx, offset {level_2}",
        "mov eax, {large_page}",
        "2:",
        "mov [ecx], eax",
        "add ecx, 8",
        "add eax, {large_page_size}",
        "jnc 2b",
        "mov eax, offset {level_2} + {table}",
        "mov dword ptr [{level_3}], eax",
        "add eax, 0x1000",
        "mov dword ptr [{level_3} + 8], eax",
        "add eax, 0x1000",
        "mov dword ptr [{level_3} + 16], eax",
        "add eax, 0x1000",
        "mov dword ptr [{level_3} + 24], eax",
        "mov eax, offset {level_3} + {table}",
        "mov dword ptr [{level_4}], eax",
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
        level_2 = sym LEVEL_2,
        level_3 = sym LEVEL_3,
        level_4 = sym LEVEL_4,
        table = const TABLE,
        large_page = const LARGE_PAGE,
        large_page_size = const LARGE_PAGE_SIZE,
        gdt_pointer = sym GDT_POINTER,
        start = sym long_mode_start,
        without_long_mode = sym without_long_mode,
    )
}

/// The end on a processor without long mode, in 32-bit code: the message, each byte when the
/// transmitter has room or after a while, then QEMU's way out.
#[unsafe(naked)]
unsafe extern "C" fn without_long_mode() -> ! {
    naked_asm!(
        ".code32",
        "mov esi, offset {message}",
        "mov edi, {length}",
        "2:",
        "mov ecx, 100000",
        "mov dx, 0x3fd",
        "3:",
        "in al, dx",
        "test al, 1 << 5",
        "jnz 4f",
        "dec ecx",
        "jnz 3b",
        "4:",
        "mov al, byte ptr [esi]",
        "mov dx, 0x3f8",
        "out dx, al",
        "inc esi",
        "dec edi",
        "jnz 2b",
        "mov al, {panicked}",
        "mov dx, {debug_exit}",
        "out dx, al",
        "5:",
        "hlt",
        "jmp 5b",
        ".code64",
        message = sym NO_LONG_MODE,
        length = const NO_LONG_MODE.len(),
        panicked = const PANICKED,
        debug_exit = const DEBUG_EXIT,
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
    let memory = BootMemory(());
    match BootInfo::read(&memory, start_info.into()) {
        Some(info) => __ringway_kernel(info, &memory),
        // There is no console yet to say more on.
        None => panic!("the loader passed no PVH start info"),
    }
}
