//! The IOMMUs that firmware describes.

use alloc::sync::Arc;

use iommu::Iommu;
use iommu::amd::{AmdVi, AmdViError, ConfigSpace};
use iommu::tables::{Dmar, Ivrs};
use iommu::vtd::{ApicMode, Vtd, VtdError};
use pci::{ConfigAccess, function_address};
use pci_types::PciAddress;
use vdpa::Platform;

use crate::machine::cpu;

/// Turns on each unit of the table.
pub(super) fn start_intel<'a>(
    platform: &'a Arc<dyn Platform>,
    table: &'a Dmar,
) -> impl Iterator<Item = Result<Arc<dyn Iommu>, VtdError>> + 'a {
    let apics = if cpu::has_x2apic() {
        ApicMode::X2Apic
    } else {
        ApicMode::XApic
    };
    (0..table.units.len()).map(move |index| {
        // SAFETY: the table is firmware's, and nobody else in this kernel knows of the registers.
        let unit = unsafe { Vtd::start(platform, table, index, apics) }?;
        Ok(unit as Arc<dyn Iommu>)
    })
}

/// Turns on each unit of the table.
pub(super) fn start_amd<'a>(
    platform: &'a Arc<dyn Platform>,
    table: &'a Ivrs,
    segments: &'a [Arc<dyn ConfigAccess>],
) -> impl Iterator<Item = Result<Arc<dyn Iommu>, AmdViError>> + 'a {
    (0..table.units.len()).map(move |index| {
        let description = &table.units[index];
        let function = segments
            .iter()
            .find(|access| access.segment() == description.segment)
            .map(|access| OwnFunction::new(access, description.segment, description.device_id));
        let config = function
            .as_ref()
            .map(|function| function as &dyn ConfigSpace);
        // SAFETY: the table is firmware's, and nobody else in this kernel knows of the registers.
        let unit = unsafe { AmdVi::start(platform, table, index, config) }?;
        Ok(unit as Arc<dyn Iommu>)
    })
}

/// The configuration space of an IOMMU that is a PCI function itself, which no driver claims.
struct OwnFunction {
    access: Arc<dyn ConfigAccess>,
    address: PciAddress,
}

impl OwnFunction {
    fn new(access: &Arc<dyn ConfigAccess>, segment: u16, device: u16) -> Self {
        Self {
            access: Arc::clone(access),
            address: function_address(segment, device),
        }
    }
}

impl ConfigSpace for OwnFunction {
    fn read(&self, offset: u16) -> u32 {
        // SAFETY: reading configuration space touches no memory, and the offset is aligned.
        unsafe { self.access.read(self.address, offset & !0b11) }
    }

    unsafe fn write(&self, offset: u16, value: u32) {
        // SAFETY: the caller vouches for it.
        unsafe { self.access.write(self.address, offset & !0b11, value) };
    }
}
