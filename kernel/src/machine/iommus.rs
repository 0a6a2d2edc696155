//! The machine's IOMMUs, and what becomes of devices that none stands before.

mod firmware;
mod report;
mod vector;
mod viot;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};

use iommu::tables::{Dmar, Ivrs, Viot};
use iommu::{InterruptSource, Iommu, Iommus};
use pci::ConfigAccess;
use spin::Once;
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{InterruptVector, NoVector};
use virtio_bus::VirtioBus;
use virtio_iommu::IommuDriver;

use crate::machine::drivers::add_driver;
use crate::machine::interrupts::vectors::DeviceVector;
use crate::pure::acpi::IommuTables;
use crate::pure::iommu_policy::{BadPolicy, IommuPolicy};

use self::vector::RemappedVector;
use self::viot::ViotTopology;

pub(crate) use self::report::Nodes;

/// Why the machine does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IommuError {
    /// The command line names no policy.
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    /// There is none.
    #[error("iommu=required: the machine has no IOMMU that this kernel drives")]
    None,
    /// One of them does not work.
    #[error("iommu=required: {0} does not work")]
    Defect(&'static str),
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct MachineIommus {
    set: Arc<Iommus>,
    /// Which devices are behind IOMMUs that are devices themselves, if there are such.
    viot: Once<Arc<ViotTopology>>,
    /// Devices that no IOMMU stands before are not used.
    required: AtomicBool,
}

impl MachineIommus {
    /// Turns on what the tables describe. Returns whether there may be an IOMMU, now or later.
    ///
    /// # Errors
    /// [`IommuError`], if one is required and does not work.
    pub(crate) fn start(
        &self,
        platform: &Arc<dyn Platform>,
        policy: IommuPolicy,
        tables: &IommuTables,
        segments: &[Arc<dyn ConfigAccess>],
    ) -> Result<bool, IommuError> {
        if policy == IommuPolicy::Off {
            return Ok(false);
        }
        let is_required = policy == IommuPolicy::Required;
        let sound = Sound { is_required };
        if let Some(bytes) = &tables.dmar
            && let Some(table) = sound.of("DMAR", Dmar::parse(bytes))?
        {
            for unit in firmware::start_intel(platform, &table) {
                if let Some(unit) = sound.of("VT-d", unit)? {
                    self.add(unit);
                }
            }
        }
        if let Some(bytes) = &tables.ivrs
            && let Some(table) = sound.of("IVRS", Ivrs::parse(bytes))?
        {
            for unit in firmware::start_amd(platform, &table, segments) {
                if let Some(unit) = sound.of("AMD-Vi", unit)? {
                    self.add(unit);
                }
            }
        }
        if let Some(bytes) = &tables.viot
            && let Some(table) = sound.of("VIOT", Viot::parse(bytes))?
            && !table.iommus.is_empty()
        {
            self.viot.call_once(|| Arc::new(ViotTopology::new(table)));
        }
        let found = !self.set.list().is_empty() || self.viot.is_completed();
        if is_required {
            if !found {
                return Err(IommuError::None);
            }
            self.required.store(true, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn add(&self, iommu: Arc<dyn Iommu>) {
        let facts = iommu.report().facts;
        let how = facts.first().map_or("", |(_, how)| how);
        log::info!("{}: {how}", iommu.name());
        self.set.add(iommu);
    }

    /// The IOMMUs.
    pub(crate) fn set(&self) -> &Arc<Iommus> {
        &self.set
    }

    /// Drives the IOMMUs that are virtio devices, as soon as they are found.
    pub(crate) async fn drive_virtio(&self, bus: &Arc<VirtioBus>) {
        if let Some(viot) = self.viot.get() {
            let topology = Arc::<ViotTopology>::clone(viot);
            let driver = IommuDriver::new(Arc::clone(&self.set), topology);
            add_driver(bus, Arc::new(driver)).await;
        }
    }

    /// Whether a device can be used only in a domain.
    pub(crate) fn isolates(&self, unit: &IsolationUnit) -> bool {
        let is_iommu = || self.viot.get().is_some_and(|viot| viot.is_iommu(unit));
        let is_required = self.required.load(Ordering::Relaxed) && !is_iommu();
        is_required || self.set.of(unit).is_some()
    }

    /// Lets a device raise the vector.
    pub(crate) fn remap(
        &self,
        source: &IsolationUnit,
        vector: DeviceVector,
    ) -> Result<Box<dyn InterruptVector>, NoVector> {
        let interrupt = vector.interrupt(false);
        match self.set.remap(InterruptSource::Unit(source), interrupt) {
            None => Ok(Box::new(vector)),
            Some(Ok(entry)) => Ok(Box::new(RemappedVector::new(entry, vector))),
            Some(Err(error)) => {
                log::warn!("an interrupt cannot be remapped: {error}");
                Err(NoVector)
            }
        }
    }
}

/// What does not work is an error where it is required, and a warning elsewhere.
struct Sound {
    is_required: bool,
}

impl Sound {
    fn of<T>(
        &self,
        what: &'static str,
        result: Result<T, impl Display>,
    ) -> Result<Option<T>, IommuError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                log::warn!("{what}: {error}; devices behind it are not confined");
                if self.is_required {
                    return Err(IommuError::Defect(what));
                }
                Ok(None)
            }
        }
    }
}
