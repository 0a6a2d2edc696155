//! The local APIC of the processor: its timer, the end of an interrupt, and where messages go.
//!
//! Intel SDM vol. 3, chapter 10. In x2APIC mode, which is used if the processor has it, the
//! registers are MSRs; otherwise they are memory.

use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{Ordering, fence};

use bitflags::bitflags;
use spin::Once;
use vdpa::platform::InterruptMessage;
use volatile::VolatilePtr;
use x86_64::registers::model_specific::Msr;

use super::vector_numbers::SPURIOUS;
use crate::machine::cpu;
use crate::machine::memory::{self, Access};

const IA32_APIC_BASE: u32 = 0x1b;
/// The first MSR of the registers in x2APIC mode.
const X2APIC_MSRS: u32 = 0x800;
/// Where a device writes to raise an interrupt (10.11.1): here, with the APIC's id in bits 19:12.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
const REGISTERS_SIZE: u64 = 4096;

/// Count at the rate of the bus clock.
const DIVIDE_BY_1: u32 = 0b1011;

bitflags! {
    /// What `IA32_APIC_BASE` holds besides the address (10.4.4, 10.12.1).
    struct Base: u64 {
        const X2APIC = 1 << 10;
        const ENABLE = 1 << 11;
    }

    /// An entry of the local vector table, or the spurious-interrupt register, besides the vector
    /// (10.5.1, 10.9).
    struct Entry: u32 {
        /// How a PC wires the second local pin. The host raises it to learn where a kernel hangs.
        const NON_MASKABLE = 0b100 << 8;
        /// In the spurious-interrupt register: the APIC works.
        const SOFTWARE_ENABLE = 1 << 8;
        const MASKED = 1 << 16;
        const TSC_DEADLINE = 0b10 << 17;
    }
}

static APIC: Once<Apic> = Once::new();

/// Why there is no local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApicError {
    /// The processor has none.
    #[error("the processor has no local APIC")]
    Missing,
    /// Its id is one that a message cannot name.
    #[error("the local APIC's id does not fit a message")]
    Id,
    /// Its registers cannot be mapped.
    #[error("the local APIC's registers cannot be mapped")]
    Registers,
}

/// What the timer of the local APIC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerMode {
    /// Counts down once; the count is set with [`start_timer`].
    OneShot,
    /// Waits for a value of the time-stamp counter.
    TscDeadline,
}

/// A register, by its offset in memory (10.4.1).
#[derive(Clone, Copy)]
#[repr(u32)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    SpuriousVector = 0xf0,
    TimerEntry = 0x320,
    Lint0Entry = 0x350,
    Lint1Entry = 0x360,
    ErrorEntry = 0x370,
    TimerInitialCount = 0x380,
    TimerCurrentCount = 0x390,
    TimerDivide = 0x3e0,
}

struct Apic {
    registers: Registers,
    id: u8,
}

enum Registers {
    Memory(NonNull<u32>),
    Msrs,
}

// SAFETY: the registers are those of the processor that runs the code, whichever it is.
unsafe impl Send for Registers {}
// SAFETY: as for `Send`; each access is a single load or store.
unsafe impl Sync for Registers {}

/// Starts the local APIC with everything masked but messages.
pub(super) fn init() -> Result<(), ApicError> {
    if !cpu::has_apic() {
        return Err(ApicError::Missing);
    }
    let mut base = Msr::new(IA32_APIC_BASE);
    // SAFETY: a processor with a local APIC has the register.
    let value = unsafe { base.read() };
    let registers = if cpu::has_x2apic() {
        // SAFETY: from here on the registers are used as MSRs.
        unsafe { base.write(value | (Base::ENABLE | Base::X2APIC).bits()) };
        Registers::Msrs
    } else {
        let address = value & !(REGISTERS_SIZE - 1) & cpu::physical_address_mask();
        memory::map(address..address + REGISTERS_SIZE, Access::Device)
            .map_err(|_| ApicError::Registers)?;
        // SAFETY: the address stays where it is, and the registers are mapped.
        unsafe { base.write(value | Base::ENABLE.bits()) };
        let pointer = NonNull::new(with_exposed_provenance_mut(address as usize));
        Registers::Memory(pointer.ok_or(ApicError::Registers)?)
    };
    let id = match &registers {
        Registers::Msrs => registers.read(Register::Id),
        Registers::Memory(_) => registers.read(Register::Id) >> 24,
    };
    let id = u8::try_from(id)
        .ok()
        .filter(|id| *id != u8::MAX)
        .ok_or(ApicError::Id)?;
    for entry in [
        Register::TimerEntry,
        Register::Lint0Entry,
        Register::ErrorEntry,
    ] {
        registers.write(entry, Entry::MASKED.bits());
    }
    registers.write(Register::Lint1Entry, Entry::NON_MASKABLE.bits());
    registers.write(Register::TaskPriority, 0);
    registers.write(
        Register::SpuriousVector,
        Entry::SOFTWARE_ENABLE.bits() | u32::from(SPURIOUS),
    );
    registers.write(Register::TimerDivide, DIVIDE_BY_1);
    APIC.call_once(|| Apic { registers, id });
    Ok(())
}

/// What a device must write to raise `vector` on this processor: fixed delivery, edge (10.11.2).
pub(super) fn message(vector: u8) -> InterruptMessage {
    InterruptMessage {
        address: MESSAGE_ADDRESS | u64::from(id()) << 12,
        data: u32::from(vector),
    }
}

/// The id of this processor's local APIC.
pub(super) fn id() -> u8 {
    APIC.get().map_or(0, |apic| apic.id)
}

/// Says that the interrupt under way has been taken.
pub(super) fn end_of_interrupt() {
    write(Register::EndOfInterrupt, 0);
}

/// Lets the timer raise `vector`.
pub(crate) fn set_timer(mode: TimerMode, vector: u8) {
    let mode = match mode {
        TimerMode::OneShot => Entry::empty(),
        TimerMode::TscDeadline => Entry::TSC_DEADLINE,
    };
    write(Register::TimerEntry, mode.bits() | u32::from(vector));
    // The deadline is an MSR, and must not be written before the register in memory (10.5.4.1).
    fence(Ordering::SeqCst);
}

/// Lets the one-shot timer count down from `count`; 0 stops it.
pub(crate) fn start_timer(count: u32) {
    write(Register::TimerInitialCount, count);
}

/// What the one-shot timer has still to count.
pub(crate) fn timer_count() -> u32 {
    APIC.get()
        .map_or(0, |apic| apic.registers.read(Register::TimerCurrentCount))
}

fn write(register: Register, value: u32) {
    if let Some(apic) = APIC.get() {
        apic.registers.write(register, value);
    }
}

impl Registers {
    fn read(&self, register: Register) -> u32 {
        match self {
            // SAFETY: the register exists in x2APIC mode, and reading it has no effect.
            Self::Msrs => unsafe { msr(register).read() as u32 },
            Self::Memory(first) => in_memory(*first, register).read(),
        }
    }

    fn write(&self, register: Register, value: u32) {
        match self {
            // SAFETY: the register exists in x2APIC mode, and no use of it here affects memory.
            Self::Msrs => unsafe { msr(register).write(u64::from(value)) },
            Self::Memory(first) => in_memory(*first, register).write(value),
        }
    }
}

fn msr(register: Register) -> Msr {
    Msr::new(X2APIC_MSRS + register as u32 / 16)
}

fn in_memory(first: NonNull<u32>, register: Register) -> VolatilePtr<'static, u32> {
    // SAFETY: the offset lies in the page of registers.
    let register = unsafe { first.byte_add(register as usize) };
    // SAFETY: the registers are mapped for ever, the offset is a multiple of 16, and no use of them
    // here affects memory.
    unsafe { VolatilePtr::new(register) }
}
