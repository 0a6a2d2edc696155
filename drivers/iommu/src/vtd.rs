//! Intel VT-d, after the "Virtualization Technology for Directed I/O Architecture Specification",
//! revision 4.1 (D51397-016).
//!
//! One [`Vtd`] stands for one remapping unit of the DMAR table. It translates with second-stage
//! page tables, in scalable mode where the unit has it, and remaps interrupts. Device TLBs,
//! first-stage translation and requests for pages stay off.

mod capability;
mod contexts;
mod domain;
mod fault;
mod interrupt;
mod page_format;
mod queue;
mod registers;
mod start;
mod unit;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use vdpa::dma::IsolationUnit;
use vdpa::platform::IommuDomain;
use vdpa::tree::Report;

use crate::{Interrupt, InterruptSource, Iommu, RemapError, RemappedInterrupt};

use self::capability::Mode;
use self::domain::Domain;
use self::unit::Unit;

pub use self::start::{ApicMode, VtdError};

/// A unit that is on. It stays on, with its memory, when the value is dropped.
#[derive(Debug)]
pub struct Vtd {
    unit: Arc<Unit>,
}

impl Iommu for Vtd {
    fn name(&self) -> String {
        self.unit.name.clone()
    }

    fn covers(&self, unit: &IsolationUnit) -> bool {
        self.unit.description.covers(unit)
    }

    fn domain(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        // Requests with a PASID would need entries of their own.
        if !self.covers(unit) || unit.pasid().is_some() {
            return None;
        }
        match Domain::new(&self.unit, unit) {
            Ok(domain) => Some(Arc::new(domain)),
            Err(error) => {
                log::warn!("{}: no domain: {error}", self.unit.name);
                None
            }
        }
    }

    fn covers_io_apic(&self, id: u8) -> bool {
        self.unit.interrupts.is_some() && self.unit.io_apic(id).is_some()
    }

    fn remap(
        &self,
        source: InterruptSource<'_>,
        interrupt: Interrupt,
    ) -> Option<Result<Box<dyn RemappedInterrupt>, RemapError>> {
        self.unit.remap(source, interrupt)
    }

    fn report(&self) -> Report {
        let unit = &*self.unit;
        let mode = match unit.capabilities.mode() {
            Mode::Legacy => "legacy",
            Mode::Scalable => "scalable",
        };
        let largest_page = match unit.capabilities.largest_page() {
            1 => "4 KiB",
            2 => "2 MiB",
            _ => "1 GiB",
        };
        let levels = unit.levels;
        let domains = unit.state.lock().domains.in_use();
        let faults = &unit.faults;
        let count = |counter: &core::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut facts = alloc::vec![
            (
                "translation",
                format!(
                    "{mode} mode, {} levels, {} bits, pages of up to {largest_page}",
                    levels.count, levels.bits
                ),
            ),
            ("domains", domains.to_string()),
            ("mapped", format!("{} bytes", count(&unit.mapped))),
            ("dma_faults", count(&faults.accesses).to_string()),
            ("unknown_faults", count(&faults.unknown).to_string()),
            ("fault_overflows", count(&faults.overflows).to_string()),
        ];
        if let Some(remapping) = &unit.interrupts {
            facts.push(("interrupts", remapping.in_use().to_string()));
            facts.push(("interrupt_faults", count(&faults.interrupts).to_string()));
        }
        if unit.is_broken() {
            facts.push(("state", "does not answer".to_string()));
        }
        Report {
            facts,
            ..Report::default()
        }
    }
}
