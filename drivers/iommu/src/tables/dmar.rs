//! DMAR: the remapping units of Intel VT-d (VT-d 4.1, 8).

mod scope;

use alloc::string::String;
use alloc::vec::Vec;

use bitflags::bitflags;
use vdpa::dma::IsolationUnit;

use super::{HEADER, Structure, TableError, length_of_structure, table};

pub use scope::{DeviceScope, ScopeKind};
use scope::{covered, scopes};

/// The structures follow the address width, the flags and 10 reserved bytes.
const STRUCTURES: usize = HEADER + 12;

const DRHD: u16 = 0;
const RMRR: u16 = 1;
const ATSR: u16 = 2;
const RHSA: u16 = 3;
const ANDD: u16 = 4;
const SATC: u16 = 5;

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmar {
    /// How many bits a physical address has that a device can send.
    pub address_bits: u8,
    /// What the platform can do.
    pub flags: DmarFlags,
    /// The units, those for whatever no other covers at the end.
    pub units: Vec<Drhd>,
    /// Memory that devices use before a driver does.
    pub reserved: Vec<Rmrr>,
    /// Root ports that take translated requests.
    pub ats_ports: Vec<Atsr>,
    /// Devices of the chip itself that have a device TLB.
    pub integrated: Vec<Satc>,
    /// Which memory is near a unit.
    pub affinities: Vec<Rhsa>,
    /// The names of devices that only ACPI knows.
    pub names: Vec<Andd>,
}

bitflags! {
    /// What the platform can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DmarFlags: u8 {
        /// Interrupts can be remapped, if a unit can, too.
        const INTR_REMAP = 1 << 0;
        /// Firmware asks not to switch x2APIC on.
        const X2APIC_OPT_OUT = 1 << 1;
        /// Firmware asks to confine what can be plugged in.
        const DMA_CTRL_PLATFORM_OPT_IN = 1 << 2;
    }

    /// What a unit is for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DrhdFlags: u8 {
        /// All devices of the segment that no other unit has in its scope.
        const INCLUDE_PCI_ALL = 1 << 0;
    }
}

/// A remapping unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drhd {
    /// What it is for.
    pub flags: DrhdFlags,
    /// Its devices' segment.
    pub segment: u16,
    /// Where its registers are, at the start of a page.
    pub base: u64,
    /// The size of their range in bytes.
    pub size: u64,
    /// Its devices. With [`INCLUDE_PCI_ALL`](DrhdFlags::INCLUDE_PCI_ALL) these are I/O APICs and
    /// HPETs.
    pub scopes: Vec<DeviceScope>,
}

impl Drhd {
    /// Whether the requests pass through it, if no unit before it in the table has them.
    #[must_use]
    pub fn covers(&self, unit: &IsolationUnit) -> bool {
        if self.flags.contains(DrhdFlags::INCLUDE_PCI_ALL) {
            let segment = u32::from(self.segment);
            unit.requester_ids().iter().any(|id| id >> 16 == segment)
        } else {
            covered(&self.scopes, self.segment, unit)
        }
    }

    fn read(structure: Structure<'_>) -> Result<Self, TableError> {
        let (base, size) = (structure.u64(8)?, 0x1000 << (structure.u8(5)? & 0xf));
        if base == 0 || base % 0x1000 != 0 || base.checked_add(size).is_none() {
            return Err(TableError::Address(structure.at));
        }
        Ok(Self {
            flags: DrhdFlags::from_bits_truncate(structure.u8(4)?),
            segment: structure.u16(6)?,
            base,
            size,
            scopes: scopes(structure, 16)?,
        })
    }
}

/// Memory that some devices reach before a driver has them, and maybe later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rmrr {
    /// Its devices' segment.
    pub segment: u16,
    /// The first byte. Firmware may forget that pages are mapped.
    pub base: u64,
    /// The last byte.
    pub limit: u64,
    /// Its devices.
    pub scopes: Vec<DeviceScope>,
}

impl Rmrr {
    /// Whether it is for devices of this unit.
    #[must_use]
    pub fn covers(&self, unit: &IsolationUnit) -> bool {
        covered(&self.scopes, self.segment, unit)
    }

    fn read(structure: Structure<'_>, address_bits: u8) -> Result<Self, TableError> {
        let (base, limit) = (structure.u64(8)?, structure.u64(16)?);
        if base > limit || limit > u64::MAX >> (64 - address_bits) {
            return Err(TableError::Address(structure.at));
        }
        Ok(Self {
            segment: structure.u16(6)?,
            base,
            limit,
            scopes: scopes(structure, 24)?,
        })
    }
}

/// Root ports below which devices may have device TLBs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atsr {
    /// All root ports of the segment.
    pub all_ports: bool,
    /// The ports' segment.
    pub segment: u16,
    /// The ports, if these are not all.
    pub scopes: Vec<DeviceScope>,
}

impl Atsr {
    /// Whether the unit's devices are below such a port.
    #[must_use]
    pub fn covers(&self, unit: &IsolationUnit) -> bool {
        if self.all_ports {
            let segment = u32::from(self.segment);
            // What is integrated in the root complex is below no port.
            let port = unit.bridges().first();
            port.is_some_and(|id| id >> 16 == segment)
        } else {
            covered(&self.scopes, self.segment, unit)
        }
    }

    fn read(structure: Structure<'_>) -> Result<Self, TableError> {
        Ok(Self {
            all_ports: structure.u8(4)? & 1 != 0,
            segment: structure.u16(6)?,
            scopes: scopes(structure, 8)?,
        })
    }
}

/// Devices of the chip that have a device TLB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Satc {
    /// Whether they do not work rightly without it.
    pub required: bool,
    /// The devices' segment.
    pub segment: u16,
    /// The devices.
    pub scopes: Vec<DeviceScope>,
}

impl Satc {
    /// Whether it is for devices of this unit.
    #[must_use]
    pub fn covers(&self, unit: &IsolationUnit) -> bool {
        covered(&self.scopes, self.segment, unit)
    }

    fn read(structure: Structure<'_>) -> Result<Self, TableError> {
        Ok(Self {
            required: structure.u8(4)? & 1 != 0,
            segment: structure.u16(6)?,
            scopes: scopes(structure, 8)?,
        })
    }
}

/// Which memory is near a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhsa {
    /// Where the unit's registers are.
    pub base: u64,
    /// The number of the memory's domain in the SRAT.
    pub proximity_domain: u32,
}

/// The name of a device that only ACPI knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Andd {
    /// The enumeration id in the scopes of its unit.
    pub device: u8,
    /// Its path, such as `\_SB.I2C0`.
    pub name: String,
}

impl Andd {
    fn read(structure: Structure<'_>) -> Result<Self, TableError> {
        let bytes = structure.from(8)?;
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        if name.len() == bytes.len() || !name.iter().all(u8::is_ascii_graphic) {
            return Err(TableError::Structure(structure.at));
        }
        Ok(Self {
            device: structure.u8(7)?,
            name: name.iter().copied().map(char::from).collect(),
        })
    }
}

impl Dmar {
    /// Parses the table, which `bytes` begin with.
    ///
    /// # Errors
    /// [`TableError`]: some of it is wrong, so none of it counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let bytes = table(bytes, b"DMAR")?;
        let table = Structure { at: 0, bytes };
        let address_bits = table.u8(HEADER)?.saturating_add(1);
        if address_bits > 64 {
            return Err(TableError::Address(0));
        }
        let mut dmar = Self {
            address_bits,
            flags: DmarFlags::from_bits_truncate(table.u8(HEADER + 1)?),
            units: Vec::new(),
            reserved: Vec::new(),
            ats_ports: Vec::new(),
            integrated: Vec::new(),
            affinities: Vec::new(),
            names: Vec::new(),
        };
        for structure in table.inner(STRUCTURES, length_of_structure)? {
            dmar.add(structure?)?;
        }
        dmar.order_units()?;
        Ok(dmar)
    }

    fn add(&mut self, structure: Structure<'_>) -> Result<(), TableError> {
        match structure.u16(0)? {
            DRHD => self.units.push(Drhd::read(structure)?),
            RMRR => self
                .reserved
                .push(Rmrr::read(structure, self.address_bits)?),
            ATSR => self.ats_ports.push(Atsr::read(structure)?),
            SATC => self.integrated.push(Satc::read(structure)?),
            RHSA => self.affinities.push(Rhsa {
                base: structure.u64(8)?,
                proximity_domain: structure.u32(16)?,
            }),
            ANDD => self.names.push(Andd::read(structure)?),
            _ => {}
        }
        Ok(())
    }

    /// Brings the units for all other devices to the end, one of each segment.
    fn order_units(&mut self) -> Result<(), TableError> {
        let all = |unit: &Drhd| unit.flags.contains(DrhdFlags::INCLUDE_PCI_ALL);
        let mut bases: Vec<u64> = self.units.iter().map(|unit| unit.base).collect();
        bases.sort_unstable();
        self.units
            .sort_by_key(|unit| (all(unit), if all(unit) { unit.segment } else { 0 }));
        let same_all =
            |pair: &[Drhd]| matches!(pair, [a, b] if all(a) && all(b) && a.segment == b.segment);
        if bases.is_sorted_by(|a, b| a < b) && !self.units.windows(2).any(same_all) {
            Ok(())
        } else {
            Err(TableError::Duplicate)
        }
    }
}
