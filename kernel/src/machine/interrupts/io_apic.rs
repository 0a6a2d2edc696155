//! The I/O APIC: turns the interrupt lines of old devices into messages.
//!
//! Intel 82093AA, 3.

use bitflags::bitflags;
use vdpa::platform::{InterruptMessage, MapError, Mmio, PhysAddr};

use crate::machine::memory::mmio::Registers;
use crate::pure::acpi::{InterruptLine, Polarity, Trigger};

/// `IOREGSEL`: which register `IOWIN` shows.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const REGISTERS_SIZE: u64 = 0x20;

/// The version, and in bits 23:16 the number of the last input.
const VERSION: u32 = 0x01;
/// The first of the two registers of the first input.
const REDIRECTION: u32 = 0x10;

bitflags! {
    /// The lower register of an input, besides the vector (3.2.4): fixed delivery to one processor.
    struct Redirection: u32 {
        const ACTIVE_LOW = 1 << 13;
        const LEVEL = 1 << 15;
        const MASKED = 1 << 16;
    }
}

/// Why a line cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    /// The registers cannot be mapped.
    #[error("the I/O APIC's registers cannot be mapped")]
    Registers(#[from] MapError),
    /// The I/O APIC has fewer inputs.
    #[error("the I/O APIC has no such input")]
    NoInput,
    /// The input is in use already.
    #[error("somebody has the input of the I/O APIC")]
    InUse,
}

/// What the two registers of an input hold for a message, besides mask, trigger mode and polarity.
pub(crate) fn redirection(message: InterruptMessage) -> u64 {
    // Both hold the id of the processor's local APIC: the message in bits 19:12, the registers in
    // 63:56.
    let destination = message.address >> 12 & 0xff;
    destination << 56 | u64::from(message.data & 0xff)
}

/// Lets the line send what `redirection` says.
pub(crate) fn route(line: InterruptLine, redirection: u64) -> Result<(), RouteError> {
    let registers = Registers::map(PhysAddr(line.io_apic), REGISTERS_SIZE)?;
    let version = read(&registers, VERSION);
    let input = u32::from(line.input);
    // Where there is no I/O APIC, nobody answers.
    if version == u32::MAX || version == 0 || input > version >> 16 & 0xff {
        return Err(RouteError::NoInput);
    }
    let mut flags = Redirection::empty();
    flags.set(Redirection::ACTIVE_LOW, line.polarity == Polarity::Low);
    flags.set(Redirection::LEVEL, line.trigger == Trigger::Level);
    let lower = REDIRECTION + 2 * input;
    if read(&registers, lower) & Redirection::MASKED.bits() == 0 {
        return Err(RouteError::InUse);
    }
    write(&registers, lower + 1, (redirection >> 32) as u32);
    write(&registers, lower, flags.bits() | redirection as u32);
    Ok(())
}

/// Lets the line send nothing any more.
pub(crate) fn mask(line: InterruptLine) {
    if let Ok(registers) = Registers::map(PhysAddr(line.io_apic), REGISTERS_SIZE) {
        let lower = REDIRECTION + 2 * u32::from(line.input);
        write(&registers, lower, Redirection::MASKED.bits());
    }
}

fn read(registers: &Registers, register: u32) -> u32 {
    select(registers, register);
    registers.read32(WINDOW)
}

fn write(registers: &Registers, register: u32, value: u32) {
    select(registers, register);
    // SAFETY: an interrupt input raises a vector and writes no memory.
    unsafe { registers.write32(WINDOW, value) };
}

fn select(registers: &Registers, register: u32) {
    // SAFETY: the register only says which one the window shows.
    unsafe { registers.write32(SELECT, register) };
}
