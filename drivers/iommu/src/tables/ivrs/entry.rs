//! The devices of an IOMMU (AMD 48882, 5.2.2.2).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use bitflags::bitflags;

use crate::tables::{Structure, TableError};

const ALL: u8 = 1;
const SELECT: u8 = 2;
const RANGE_START: u8 = 3;
const RANGE_END: u8 = 4;
const ALIAS_SELECT: u8 = 0x42;
const ALIAS_RANGE_START: u8 = 0x43;
const EXTENDED_SELECT: u8 = 0x46;
const EXTENDED_RANGE_START: u8 = 0x47;
const SPECIAL: u8 = 0x48;
const ACPI: u8 = 0xf0;

/// Entries that only fill room.
const PADDING: [u8; 2] = [0, 0x40];
/// The last byte of an ACPI entry besides the device's unique id: the length of that.
const UID_LENGTH: usize = 21;

bitflags! {
    /// What firmware wants in the device table entry besides translations (AMD 48882, table 87).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DteSettings: u8 {
        /// INIT requests pass.
        const INIT = 1 << 0;
        /// External interrupts pass.
        const EXTERNAL_INTERRUPT = 1 << 1;
        /// NMI requests pass.
        const NMI = 1 << 2;
        /// SysMgt: both bits.
        const SYSTEM_MANAGEMENT = 0b11 << 4;
        /// LINT0 passes.
        const LINT0 = 1 << 6;
        /// LINT1 passes.
        const LINT1 = 1 << 7;
    }
}

/// Devices that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Their ids: bus, device and function.
    pub devices: RangeInclusive<u16>,
    /// The id that their requests carry, where it is another.
    pub alias: Option<u16>,
    /// What is wanted for them.
    pub settings: DteSettings,
    /// Whether firmware forbids device TLBs.
    pub ats_disabled: bool,
}

/// What is no PCI function, but sends messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialDevice {
    /// What it is.
    pub kind: SpecialKind,
    /// The id of an I/O APIC, the number of a HPET.
    pub handle: u8,
    /// The id that its requests carry: bus, device and function.
    pub device: u16,
    /// What is wanted for it.
    pub settings: DteSettings,
}

/// What a special device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// An I/O APIC.
    IoApic,
    /// A HPET.
    Hpet,
}

/// A device that only ACPI knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiDevice {
    /// The id that its requests carry: bus, device and function.
    pub device: u16,
    /// What is wanted for it.
    pub settings: DteSettings,
    /// The hardware id, such as `AMDI0020`.
    pub hardware_id: [u8; 8],
    /// The compatible id.
    pub compatible_id: [u8; 8],
    /// Which of those with the same ids it is.
    pub unique_id: Uid,
}

/// Which of several devices with the same ids it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uid {
    /// There is one.
    None,
    /// A number.
    Number(u64),
    /// Text, usually the path of the device.
    Text(Vec<u8>),
}

/// All entries of an IOMMU.
#[derive(Default)]
pub(super) struct Devices {
    pub(super) devices: Vec<DeviceEntry>,
    pub(super) special: Vec<SpecialDevice>,
    pub(super) acpi: Vec<AcpiDevice>,
}

impl Devices {
    /// The entries from `offset` to the structure's end.
    pub(super) fn read(structure: Structure<'_>, offset: usize) -> Result<Self, TableError> {
        let mut devices = Self::default();
        // A range is one entry at its start, and one at its end, which comes next.
        let mut open: Option<(usize, DeviceEntry)> = None;
        for entry in structure.inner(offset, length_of_entry)? {
            let entry = entry?;
            let kind = entry.u8(0)?;
            if PADDING.contains(&kind) {
                continue;
            }
            if let Some((at, range)) = open.take() {
                let first = *range.devices.start();
                let last = entry.u16(1)?;
                if kind != RANGE_END || last < first {
                    return Err(TableError::Range(at));
                }
                devices.devices.push(DeviceEntry {
                    devices: first..=last,
                    ..range
                });
                continue;
            }
            match kind {
                ALL => devices.devices.push(DeviceEntry {
                    devices: 0..=u16::MAX,
                    ..device(entry)?
                }),
                SELECT | ALIAS_SELECT | EXTENDED_SELECT => devices.devices.push(device(entry)?),
                RANGE_START | ALIAS_RANGE_START | EXTENDED_RANGE_START => {
                    open = Some((entry.at, device(entry)?));
                }
                RANGE_END => return Err(TableError::Range(entry.at)),
                SPECIAL => devices.special.extend(special(entry)?),
                ACPI => devices.acpi.push(acpi(entry)?),
                _ => {}
            }
        }
        match open {
            Some((at, _)) => Err(TableError::Range(at)),
            None => Ok(devices),
        }
    }
}

/// What all entries of PCI functions have, which differ in what they say besides.
fn device(entry: Structure<'_>) -> Result<DeviceEntry, TableError> {
    let first = entry.u16(1)?;
    let kind = entry.u8(0)?;
    let alias = match kind {
        ALIAS_SELECT | ALIAS_RANGE_START => Some(entry.u16(5)?),
        _ => None,
    };
    let ats_disabled = match kind {
        EXTENDED_SELECT | EXTENDED_RANGE_START => entry.u32(4)? >> 31 != 0,
        _ => false,
    };
    Ok(DeviceEntry {
        devices: first..=first,
        alias,
        settings: settings(entry)?,
        ats_disabled,
    })
}

fn special(entry: Structure<'_>) -> Result<Option<SpecialDevice>, TableError> {
    let kind = match entry.u8(7)? {
        1 => SpecialKind::IoApic,
        2 => SpecialKind::Hpet,
        _ => return Ok(None),
    };
    Ok(Some(SpecialDevice {
        kind,
        handle: entry.u8(4)?,
        device: entry.u16(5)?,
        settings: settings(entry)?,
    }))
}

fn acpi(entry: Structure<'_>) -> Result<AcpiDevice, TableError> {
    let uid = entry.from(UID_LENGTH + 1)?;
    let unique_id = match entry.u8(20)? {
        0 => Uid::None,
        1 => Uid::Number(entry.u64(UID_LENGTH + 1)?),
        2 => Uid::Text(uid.to_vec()),
        _ => return Err(TableError::Structure(entry.at)),
    };
    Ok(AcpiDevice {
        device: entry.u16(1)?,
        settings: settings(entry)?,
        hardware_id: entry.field(4)?,
        compatible_id: entry.field(12)?,
        unique_id,
    })
}

fn settings(entry: Structure<'_>) -> Result<DteSettings, TableError> {
    Ok(DteSettings::from_bits_truncate(entry.u8(3)?))
}

/// The length depends on the type; that of an unknown one with a variable length cannot be known.
fn length_of_entry(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        0..0x40 => Some(4),
        0x40..0x80 => Some(8),
        0x80..0xc0 => Some(16),
        0xc0..0xf0 => Some(32),
        ACPI => Some(UID_LENGTH + 1 + usize::from(*bytes.get(UID_LENGTH)?)),
        _ => None,
    }
}
