//! AMD-Vi: AMD's IOMMU, after its "I/O Virtualization Technology (IOMMU) Specification" (48882).
//!
//! One [`AmdVi`] stands for one IOMMU of the IVRS table. It translates with the page tables of the
//! host, and remaps interrupts. Device TLBs, guest translation and requests for pages stay off.

mod command;
mod device_table;
mod domain;
mod event;
mod firmware;
mod function;
mod interrupt;
mod page_format;
mod registers;
mod start;
mod unit;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use vdpa::dma::IsolationUnit;
use vdpa::platform::IommuDomain;
use vdpa::tree::Report;

use crate::tables::SpecialKind;
use crate::{Interrupt, InterruptSource, Iommu, RemapError, RemappedInterrupt};

use self::device_table::Remapping;
use self::domain::Domain;
use self::interrupt::{EntryFormat, Place};
use self::unit::Unit;

pub use self::function::ConfigSpace;
pub use self::start::AmdViError;

/// An IOMMU that is on. It stays on, with its memory, when the value is dropped.
#[derive(Debug)]
pub struct AmdVi {
    unit: Arc<Unit>,
}

impl Iommu for AmdVi {
    fn name(&self) -> String {
        self.unit.name.clone()
    }

    fn covers(&self, unit: &IsolationUnit) -> bool {
        self.unit.description.covers(unit)
    }

    fn domain(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        // Requests with a PASID would need guest translation.
        if !self.covers(unit) || unit.pasid().is_some() {
            return None;
        }
        let devices = self.unit.device_ids(unit);
        let mut known = self.unit.known.lock();
        known.extend(devices.iter().map(|id| (*id, Arc::downgrade(unit))));
        drop(known);
        match Domain::new(&self.unit, devices) {
            Ok(domain) => Some(Arc::new(domain)),
            Err(error) => {
                log::warn!("{}: no domain: {error}", self.unit.name);
                None
            }
        }
    }

    fn covers_io_apic(&self, id: u8) -> bool {
        self.unit.traits.remapping == Remapping::On && self.io_apic(id).is_some()
    }

    fn remap(
        &self,
        source: InterruptSource<'_>,
        interrupt: Interrupt,
    ) -> Option<Result<Box<dyn RemappedInterrupt>, RemapError>> {
        if self.unit.traits.remapping == Remapping::Off {
            return None;
        }
        let (devices, place) = match source {
            InterruptSource::Unit(unit) => (self.unit.device_ids(unit), Place::Any),
            InterruptSource::IoApic(id) => (Vec::from([self.io_apic(id)?]), Place::LikeVector),
        };
        let remapped = self.unit.remap(&devices, interrupt, place);
        Some(remapped.map(|remapped| Box::new(remapped) as Box<dyn RemappedInterrupt>))
    }

    fn report(&self) -> Report {
        let unit = &self.unit;
        let (entered, firmware) = {
            let devices = unit.devices.lock();
            (devices.owners.len(), devices.homes.count())
        };
        let levels = unit.traits.levels();
        let interrupts = match (unit.traits.remapping, unit.traits.entries) {
            (Remapping::Off, _) => "not remapped",
            (Remapping::On, EntryFormat::Basic) => "remapped, 32-bit entries",
            (Remapping::On, EntryFormat::Wide) => "remapped, 128-bit entries",
            (Remapping::On, EntryFormat::WideX2Apic) => "remapped, 128-bit entries, x2APIC",
        };
        let mut facts = Vec::from([
            ("kind", "AMD-Vi".to_string()),
            ("registers", format!("{:#x}", unit.description.base)),
            (
                "addresses",
                format!("{} bits, {levels} levels", unit.traits.address_bits),
            ),
            ("interrupts", interrupts.to_string()),
            ("requester ids in domains", entered.to_string()),
            (
                "mapped bytes",
                unit.mapped.load(Ordering::Relaxed).to_string(),
            ),
            ("events", unit.events.to_string()),
        ]);
        if firmware > 0 {
            facts.push(("domains of firmware", firmware.to_string()));
        }
        if unit.is_broken() {
            facts.push(("broken", "it executes no commands any more".to_string()));
        }
        Report {
            facts,
            ..Report::default()
        }
    }
}

impl AmdVi {
    /// The id that the requests of an I/O APIC carry.
    fn io_apic(&self, id: u8) -> Option<u16> {
        let mut special = self.unit.description.special.iter();
        let io_apic =
            special.find(|device| device.kind == SpecialKind::IoApic && device.handle == id);
        io_apic.map(|device| device.device)
    }
}
