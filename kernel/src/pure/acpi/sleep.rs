//! How to power off: the soft-off state S5 (ACPI 6.5, 7.4.2, 4.8.3.2.1 and 4.8.3.7).

use super::fadt::is_hardware_reduced;
use super::tables::{HEADER, u32_at, u64_at};

/// Writing the value to the register powers the machine off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerOff {
    /// Where to write.
    pub(crate) register: SleepRegister,
    /// What to write there.
    pub(crate) value: u16,
}

/// The register that puts the machine to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SleepRegister {
    /// `PM1a_CNT`, of 16 bits, in this I/O port.
    Pm1Control(u16),
    /// The sleep control register of a hardware-reduced machine, of 8 bits, in this I/O port.
    Port(u16),
    /// The same at this address of memory.
    Memory(u64),
}

const PM1A_CONTROL: usize = 64;
const SLEEP_CONTROL: usize = 244;

/// How to power off, from the FADT and the definitions in the DSDT.
pub(super) fn power_off(fadt: &[u8], dsdt: &[u8]) -> Option<PowerOff> {
    let sleep_type = soft_off_type(dsdt.get(HEADER..)?)?;
    if is_hardware_reduced(fadt) {
        const ENABLE: u16 = 1 << 5;
        let value = u16::from(sleep_type) << 2 | ENABLE;
        return Some(PowerOff {
            register: sleep_control(fadt)?,
            value,
        });
    }
    const ENABLE: u16 = 1 << 13;
    let port = u16::try_from(u32_at(fadt, PM1A_CONTROL)?)
        .ok()
        .filter(|port| *port != 0)?;
    let value = u16::from(sleep_type) << 10 | ENABLE;
    Some(PowerOff {
        register: SleepRegister::Pm1Control(port),
        value,
    })
}

/// The sleep control register, a generic address (ACPI 6.5, 5.2.3.2).
fn sleep_control(fadt: &[u8]) -> Option<SleepRegister> {
    const MEMORY: u8 = 0;
    const IO: u8 = 1;
    let address = u64_at(fadt, SLEEP_CONTROL + 4).filter(|address| *address != 0)?;
    match *fadt.get(SLEEP_CONTROL)? {
        MEMORY => Some(SleepRegister::Memory(address)),
        IO => u16::try_from(address).ok().map(SleepRegister::Port),
        _ => None,
    }
}

/// The first element of the package `\_S5`, found without interpreting the definitions: nothing but
/// its own definition has its name behind a name operator and before a package (ACPI 6.5, 20.2).
fn soft_off_type(aml: &[u8]) -> Option<u8> {
    const NAMES: [&[u8]; 2] = [b"\x08_S5_\x12", b"\x08\\_S5_\x12"];
    const ZERO: u8 = 0x00;
    const ONE: u8 = 0x01;
    const BYTE: u8 = 0x0a;
    let package = NAMES.iter().find_map(|name| {
        let start = aml.windows(name.len()).position(|window| window == *name)?;
        aml.get(start + name.len()..)
    })?;
    // The length has itself as many more bytes as its two upper bits say; behind it is the number
    // of elements.
    let length_bytes = 1 + usize::from(package.first()? >> 6);
    let element = package.get(length_bytes + 1..)?;
    let sleep_type = match *element.first()? {
        ZERO => 0,
        ONE => 1,
        BYTE => *element.get(1)?,
        _ => return None,
    };
    const LARGEST: u8 = 7;
    (sleep_type <= LARGEST).then_some(sleep_type)
}
