//! Base address registers: what address space a function asks for, and where it is.
//!
//! Sizing writes all ones and reads back which bits stick. For that moment the register names a
//! wrong address, so the function must not decode it: hypervisors that pass devices through give up
//! a machine that does otherwise.
//!
//! Source: PCI Local Bus 3.0, 6.2.5.1; PCI Express Base 6.0, 7.5.1.2.1.

use core::fmt;

use pci_types::{CommandRegister, HeaderType};

use super::access::ConfigSpace;
use super::header;

/// How many base address registers the largest header has.
pub const BAR_COUNT: usize = 6;

const FIRST: u16 = 0x10;
/// Bit 0: the register asks for I/O ports.
const IO: u32 = 1;
/// The address bits of a memory register; the others say what it is.
const MEMORY_MASK: u32 = !0xf;
const PREFETCHABLE: u32 = 1 << 3;
/// The address bits of an I/O register.
const IO_MASK: u32 = !0x3;

/// What kind of addresses a register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two registers.
    Memory64,
}

/// The addresses that a base address register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Of what kind they are.
    pub kind: BarKind,
    /// Whether reading has no side effects, so that a bridge may read ahead.
    pub prefetchable: bool,
    /// How many bytes; a power of two, and the alignment.
    pub size: u64,
    /// Where they start; `None` until somebody has assigned them.
    pub address: Option<u64>,
}

impl Bar {
    /// Whether the register asks for memory.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.kind != BarKind::Io
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            BarKind::Io => "io",
            BarKind::Memory32 => "mem32",
            BarKind::Memory64 => "mem64",
        };
        match self.address {
            Some(address) => write!(f, "{kind} {address:#x} size {:#x}", self.size),
            None => write!(f, "{kind} unassigned size {:#x}", self.size),
        }
    }
}

/// A base address register that says something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarError {
    /// Its memory type is one that is reserved.
    #[error("the BAR's memory type is reserved")]
    ReservedType,
    /// It is the last register and claims to have an upper half.
    #[error("the 64-bit BAR has no upper half")]
    NoUpperHalf,
}

/// The registers of a function. `Ok(None)`: not implemented, or the upper half of the one before.
pub type Bars = [Result<Option<Bar>, BarError>; BAR_COUNT];

/// Finds out what a function asks for. Configuration space is as before afterwards.
pub(super) fn size_bars(config: &ConfigSpace) -> Bars {
    let count = match header::kind(config) {
        HeaderType::Endpoint => BAR_COUNT,
        HeaderType::PciPciBridge => 2,
        _ => 0,
    };
    without_decode(config, || size_registers(config, FIRST, count))
}

/// As [`size_bars`], for `count` registers from `first` on, to which nobody answers.
pub(super) fn size_registers(config: &ConfigSpace, first: u16, count: usize) -> Bars {
    let mut bars = [Ok(None); BAR_COUNT];
    let mut index = 0;
    while index < count {
        bars[index] = size_bar(config, register(first, index), index + 1 < count);
        index += match bars[index] {
            Ok(Some(Bar {
                kind: BarKind::Memory64,
                ..
            })) => 2,
            _ => 1,
        };
    }
    bars
}

/// Puts a register where `bar` says. Its function must not be in use.
pub(super) fn write_bar(config: &ConfigSpace, index: usize, bar: &Bar) {
    without_decode(config, || {
        write_register(config, register(FIRST, index), bar);
    });
}

/// As [`write_bar`], for the register at `at`, to which nobody answers.
pub(super) fn write_register(config: &ConfigSpace, at: u16, bar: &Bar) {
    let Some(address) = bar.address else { return };
    let (low, high) = halves(address);
    config.write32(at, low);
    if bar.kind == BarKind::Memory64 {
        config.write32(at + 4, high);
    }
}

/// Runs `change` while the function answers to none of its addresses.
fn without_decode<T>(config: &ConfigSpace, change: impl FnOnce() -> T) -> T {
    let decode = CommandRegister::IO_ENABLE | CommandRegister::MEMORY_ENABLE;
    let before = config.update_command(|command| command.difference(decode));
    let result = change();
    config.update_command(|_| before);
    result
}

/// `more`: another register follows, which may be the upper half.
fn size_bar(config: &ConfigSpace, at: u16, more: bool) -> Result<Option<Bar>, BarError> {
    let found = config.read32(at);
    if found & IO != 0 {
        let mask = probe(config, at) & IO_MASK;
        return Ok(bar(
            BarKind::Io,
            found,
            u64::from(mask),
            u64::from(found & IO_MASK),
        ));
    }
    let low = u64::from(found & MEMORY_MASK);
    match (found >> 1) & 0b11 {
        0b00 => {
            let mask = probe(config, at) & MEMORY_MASK;
            Ok(bar(BarKind::Memory32, found, u64::from(mask), low))
        }
        0b10 if !more => Err(BarError::NoUpperHalf),
        0b10 => {
            let high = config.read32(at + 4);
            let mask = probe(config, at) & MEMORY_MASK;
            let mask = (u64::from(probe(config, at + 4)) << 32) | u64::from(mask);
            Ok(bar(
                BarKind::Memory64,
                found,
                mask,
                (u64::from(high) << 32) | low,
            ))
        }
        _ => Err(BarError::ReservedType),
    }
}

/// Which bits of a register stick.
fn probe(config: &ConfigSpace, at: u16) -> u32 {
    let found = config.read32(at);
    config.write32(at, u32::MAX);
    let mask = config.read32(at);
    config.write32(at, found);
    mask
}

/// What the register asks for; nothing, if no address bit sticks. The lowest one that does is the
/// size: some devices have gaps above it.
fn bar(kind: BarKind, found: u32, mask: u64, address: u64) -> Option<Bar> {
    let size = 1_u64.checked_shl(mask.trailing_zeros())?;
    let prefetchable = kind != BarKind::Io && found & PREFETCHABLE != 0;
    Some(Bar {
        kind,
        prefetchable,
        size,
        address: assigned(address, size),
    })
}

/// The address that firmware left, if it is one.
fn assigned(address: u64, size: u64) -> Option<u64> {
    let valid = address != 0 && address.is_multiple_of(size) && address.checked_add(size).is_some();
    valid.then_some(address)
}

/// The two registers' worth of an address.
fn halves(address: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// Where a register is, of those from `first` on.
pub(super) fn register(first: u16, index: usize) -> u16 {
    first + 4 * u16::try_from(index).expect("there are at most six registers")
}
