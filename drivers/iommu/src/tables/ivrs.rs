//! IVRS: the IOMMUs of AMD-Vi (AMD 48882, 5).

mod entry;

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::RangeInclusive;

use bitflags::bitflags;
use vdpa::dma::IsolationUnit;

use super::{HEADER, Structure, TableError, length_of_structure, table};

use entry::Devices;
pub use entry::{AcpiDevice, DeviceEntry, DteSettings, SpecialDevice, SpecialKind, Uid};

/// The structures follow IVinfo and 8 reserved bytes.
const STRUCTURES: usize = HEADER + 12;

/// The types of IVHD, of which a newer one says more of the same IOMMU.
const IVHD_10: u8 = 0x10;
const IVHD_11: u8 = 0x11;
const IVHD_40: u8 = 0x40;
const IVMD_ALL: u8 = 0x20;
const IVMD_ONE: u8 = 0x21;
const IVMD_RANGE: u8 = 0x22;

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ivrs {
    /// IVinfo: sizes of addresses and what all units can do.
    pub info: u32,
    /// The units, by segment and device.
    pub units: Vec<Ivhd>,
    /// Memory to which other rules apply.
    pub memory: Vec<Ivmd>,
}

impl Ivrs {
    /// How many bits an address has that a device sends, where the table says it.
    #[must_use]
    pub fn virtual_bits(&self) -> Option<u8> {
        Some((self.info >> 15 & 0x7f) as u8).filter(|bits| *bits != 0)
    }

    /// Parses the table, which `bytes` begin with.
    ///
    /// # Errors
    /// [`TableError`]: some of it is wrong, so none of it counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let bytes = table(bytes, b"IVRS")?;
        let table = Structure { at: 0, bytes };
        let (mut units, mut memory) = (Vec::new(), Vec::new());
        for structure in table.inner(STRUCTURES, length_of_structure)? {
            let structure = structure?;
            match structure.u8(0)? {
                kind @ (IVHD_10 | IVHD_11 | IVHD_40) => {
                    units.push((kind, Ivhd::read(structure, kind)?));
                }
                IVMD_ALL | IVMD_ONE | IVMD_RANGE => memory.push(Ivmd::read(structure)?),
                _ => {}
            }
        }
        Ok(Self {
            info: table.u32(HEADER)?,
            units: newest(units)?,
            memory,
        })
    }
}

/// Of the structures about one IOMMU the one of the newest type.
fn newest(mut units: Vec<(u8, Ivhd)>) -> Result<Vec<Ivhd>, TableError> {
    units.sort_by_key(|(kind, unit)| (unit.segment, unit.device_id, Reverse(*kind)));
    let same = |a: &Ivhd, b: &Ivhd| a.segment == b.segment && a.device_id == b.device_id;
    if units
        .windows(2)
        .any(|pair| matches!(pair, [(kind, a), (other, b)] if kind == other && same(a, b)))
    {
        return Err(TableError::Duplicate);
    }
    units.dedup_by(|(_, later), (_, first)| same(later, first));
    let mut bases: Vec<u64> = units.iter().map(|(_, unit)| unit.base).collect();
    bases.sort_unstable();
    if bases.is_sorted_by(|a, b| a < b) {
        Ok(units.into_iter().map(|(_, unit)| unit).collect())
    } else {
        Err(TableError::Duplicate)
    }
}

bitflags! {
    /// What firmware wants of an IOMMU, and what it can do (AMD 48882, 5.2.2.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IvhdFlags: u8 {
        /// HtTunEn: the tunnel of HyperTransport.
        const HT_TUNNEL = 1 << 0;
        /// PassPW.
        const PASS_POSTED_WRITES = 1 << 1;
        /// ResPassPW.
        const RESPONSES_PASS_POSTED_WRITES = 1 << 2;
        /// Isoc.
        const ISOCHRONOUS = 1 << 3;
        /// IotlbSup: device TLBs.
        const IOTLB = 1 << 4;
        /// Coherent: its walks of tables are.
        const COHERENT = 1 << 5;
        /// PreFSup: the command that fetches translations early.
        const PREFETCH = 1 << 6;
        /// PPRSup: requests for pages by devices.
        const PPR = 1 << 7;
    }

    /// What applies to memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IvmdFlags: u8 {
        /// The devices reach it at its own address.
        const UNITY = 1 << 0;
        /// They may read.
        const READ = 1 << 1;
        /// They may write.
        const WRITE = 1 << 2;
        /// Addresses in it are not translated.
        const EXCLUSION = 1 << 3;
    }
}

/// An IOMMU and its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ivhd {
    /// What firmware wants.
    pub flags: IvhdFlags,
    /// The IOMMU as a PCI function: bus, device, function.
    pub device_id: u16,
    /// Where in its configuration space its capability is.
    pub capability: u16,
    /// Where its registers are.
    pub base: u64,
    /// Its devices' segment.
    pub segment: u16,
    /// IOMMU Info: the vector of its own interrupts, its unit id.
    pub info: u16,
    /// What type 10h says of features, and later ones of attributes.
    pub attributes: u32,
    /// The registers EFR and EFR2, where the structure has an image of them.
    pub features: Option<[u64; 2]>,
    /// Its devices. Of two entries for one the later counts.
    pub devices: Vec<DeviceEntry>,
    /// I/O APICs and HPETs.
    pub special: Vec<SpecialDevice>,
    /// Devices that only ACPI knows.
    pub acpi: Vec<AcpiDevice>,
}

impl Ivhd {
    /// Whether the unit's requests pass through it.
    #[must_use]
    pub fn covers(&self, unit: &IsolationUnit) -> bool {
        unit.requester_ids().iter().any(|id| {
            id >> 16 == u32::from(self.segment) && self.device((id & 0xffff) as u16).is_some()
        })
    }

    /// What it says of a device: bus, device and function.
    #[must_use]
    pub fn device(&self, device: u16) -> Option<&DeviceEntry> {
        let mut entries = self.devices.iter().rev();
        entries.find(|entry| entry.devices.contains(&device))
    }

    fn read(structure: Structure<'_>, kind: u8) -> Result<Self, TableError> {
        let (features, entries) = if kind == IVHD_10 {
            (None, 24)
        } else {
            (Some([structure.u64(24)?, structure.u64(32)?]), 40)
        };
        // The registers are aligned to 16 KiB at least (AMD 48882, 3.1.1).
        let base = structure.u64(8)?;
        if base == 0 || base % 0x4000 != 0 {
            return Err(TableError::Address(structure.at));
        }
        let Devices {
            devices,
            special,
            acpi,
        } = Devices::read(structure, entries)?;
        Ok(Self {
            flags: IvhdFlags::from_bits_truncate(structure.u8(1)?),
            device_id: structure.u16(4)?,
            capability: structure.u16(6)?,
            base,
            segment: structure.u16(16)?,
            info: structure.u16(18)?,
            attributes: structure.u32(20)?,
            features,
            devices,
            special,
            acpi,
        })
    }
}

/// Memory to which other rules apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ivmd {
    /// The rules.
    pub flags: IvmdFlags,
    /// The devices' segment.
    pub segment: u16,
    /// The devices: bus, device and function.
    pub devices: RangeInclusive<u16>,
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

impl Ivmd {
    /// Whether it is for devices of this unit.
    #[must_use]
    pub fn covers(&self, unit: &IsolationUnit) -> bool {
        unit.requester_ids().iter().any(|id| {
            id >> 16 == u32::from(self.segment) && self.devices.contains(&((id & 0xffff) as u16))
        })
    }

    fn read(structure: Structure<'_>) -> Result<Self, TableError> {
        let first = structure.u16(4)?;
        let devices = match structure.u8(0)? {
            IVMD_ALL => 0..=u16::MAX,
            IVMD_ONE => first..=first,
            _ => first..=structure.u16(6)?,
        };
        if devices.is_empty() {
            return Err(TableError::Range(structure.at));
        }
        let (start, length) = (structure.u64(16)?, structure.u64(24)?);
        if length == 0 || start.checked_add(length).is_none() {
            return Err(TableError::Address(structure.at));
        }
        Ok(Self {
            flags: IvmdFlags::from_bits_truncate(structure.u8(1)?),
            segment: structure.u16(8)?,
            devices,
            start,
            length,
        })
    }
}
