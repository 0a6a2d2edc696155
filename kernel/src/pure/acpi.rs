//! What the firmware says in its ACPI tables: where PCI configuration space is, a clock, where the
//! serial port interrupts, how to power off.
//!
//! The tables are read once, at the start. Every length and sum is checked before it is used: a
//! table that is wrong is as good as missing. ACPI 6.5, 5.2.

mod aml;
mod fadt;
mod madt;
mod mcfg;
mod sleep;
mod tables;

#[cfg(test)]
mod testing;

#[cfg(feature = "iommu")]
use alloc::boxed::Box;

use boot::PhysicalMemory;
use heapless::Vec;

pub(crate) use self::aml::VirtioDevice;
pub(crate) use self::fadt::PmTimer;
pub(crate) use self::madt::InterruptLines;
#[cfg(target_os = "none")]
pub(crate) use self::madt::{InterruptLine, Polarity, Trigger};
pub(crate) use self::mcfg::{ConfigRegion, MAX_REGIONS};
pub(crate) use self::sleep::{PowerOff, SleepRegister};

/// The most virtio devices in memory that are taken over.
const MAX_VIRTIO_DEVICES: usize = 32;

/// What of the tables the kernel uses. Each part may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acpi {
    /// PCI configuration space that is mapped into memory.
    pub(crate) config_regions: Vec<ConfigRegion, MAX_REGIONS>,
    /// Whether the firmware describes the machine, and names no root bus beside the first.
    pub(crate) has_one_root_bus: bool,
    /// The power management timer.
    pub(crate) pm_timer: Option<PmTimer>,
    /// Where interrupt lines arrive.
    pub(crate) lines: InterruptLines,
    /// Virtio devices whose registers are in memory.
    pub(crate) virtio_devices: Vec<VirtioDevice, MAX_VIRTIO_DEVICES>,
    /// How to power off.
    pub(crate) power_off: Option<PowerOff>,
}

impl Default for Acpi {
    /// A machine whose firmware says nothing.
    fn default() -> Self {
        Self {
            config_regions: Vec::new(),
            has_one_root_bus: false,
            pm_timer: None,
            lines: InterruptLines::of_a_pc(),
            virtio_devices: Vec::new(),
            power_off: None,
        }
    }
}

impl Acpi {
    /// Reads the tables from `memory`, beginning with the root at `rsdp`.
    pub(crate) fn read(memory: &impl PhysicalMemory, rsdp: u64) -> Self {
        let Some(root) = tables::root(memory, rsdp) else {
            return Self::default();
        };
        let mut config_regions = tables::find(memory, root, b"MCFG")
            .map(mcfg::config_regions)
            .unwrap_or_default();
        let lines = tables::find(memory, root, b"APIC")
            .map(InterruptLines::read)
            .unwrap_or_default();
        let fadt = tables::find(memory, root, b"FACP");
        let dsdt = fadt
            .and_then(fadt::dsdt)
            .and_then(|dsdt| tables::table(memory, dsdt, b"DSDT"));
        let definitions = || tables::each(memory, root, b"SSDT").chain(dsdt);
        if config_regions.is_empty() {
            let base = definitions().find_map(aml::config_base);
            config_regions.extend(base.map(ConfigRegion::at));
        }
        Self {
            config_regions,
            has_one_root_bus: dsdt.is_some() && !definitions().any(aml::names_base_bus),
            pm_timer: fadt.and_then(fadt::pm_timer),
            lines,
            virtio_devices: definitions()
                .flat_map(aml::virtio_devices)
                .take(MAX_VIRTIO_DEVICES)
                .collect(),
            power_off: fadt
                .zip(dsdt)
                .and_then(|(fadt, dsdt)| sleep::power_off(fadt, dsdt)),
        }
    }
}

/// The tables that describe IOMMUs, as they are. Who reads them believes nothing.
#[cfg(feature = "iommu")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IommuTables {
    /// Intel's.
    pub(crate) dmar: Option<Box<[u8]>>,
    /// AMD's.
    pub(crate) ivrs: Option<Box<[u8]>>,
    /// Of virtio devices.
    pub(crate) viot: Option<Box<[u8]>>,
}

#[cfg(feature = "iommu")]
impl IommuTables {
    /// Copies the tables from `memory`, beginning with the root at `rsdp`.
    pub(crate) fn copy(memory: &impl PhysicalMemory, rsdp: u64) -> Self {
        let root = tables::root(memory, rsdp);
        let copy = |signature| tables::find(memory, root?, signature).map(Box::from);
        Self {
            dmar: copy(b"DMAR"),
            ivrs: copy(b"IVRS"),
            viot: copy(b"VIOT"),
        }
    }
}

#[cfg(test)]
mod tests;
