//! The machine's IOMMUs, and what becomes of devices that none stands before.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use iommu::{InterruptSource, Iommus, RemappedInterrupt};
use spin::Once;
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{InterruptMessage, InterruptVector, NoVector};
use virtio_bus::VirtioBus;
use virtio_iommu::IommuDriver;

use crate::machine::drivers::add_driver;
use crate::machine::interrupts::vectors::DeviceVector;
use crate::machine::viot::ViotTopology;
use crate::pure::acpi::IommuTables;
use crate::pure::iommu_policy::{BadPolicy, IommuPolicy};

/// Why the machine does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IommuError {
    /// The command line names no policy.
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    /// There is none.
    #[error("iommu=required: the machine has no IOMMU that this kernel drives")]
    None,
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
    /// [`IommuError::None`], if one is required.
    pub(crate) fn start(
        &self,
        platform: &Arc<dyn Platform>,
        policy: IommuPolicy,
        tables: &IommuTables,
    ) -> Result<bool, IommuError> {
        if policy == IommuPolicy::Off {
            return Ok(false);
        }
        let _ = platform;
        if let Some(viot) = tables.viot.as_deref().and_then(ViotTopology::new) {
            self.viot.call_once(|| Arc::new(viot));
        }
        let found = !self.set.list().is_empty() || self.viot.is_completed();
        if policy == IommuPolicy::Required {
            if !found {
                return Err(IommuError::None);
            }
            self.required.store(true, Ordering::Relaxed);
        }
        Ok(found)
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
        let source = InterruptSource::Unit(source);
        match self.set.remap(source, vector.interrupt(false)) {
            None => Ok(Box::new(vector)),
            Some(Ok(entry)) => Ok(Box::new(RemappedVector {
                entry,
                _vector: vector,
            })),
            Some(Err(error)) => {
                log::warn!("an interrupt cannot be remapped: {error}");
                Err(NoVector)
            }
        }
    }
}

/// A vector that one device may raise. The IOMMU has forgotten it before it is free.
#[derive(Debug)]
struct RemappedVector {
    entry: Box<dyn RemappedInterrupt>,
    _vector: DeviceVector,
}

// SAFETY: the IOMMU raises the vector for the message, and nothing after the entry is gone.
unsafe impl InterruptVector for RemappedVector {
    fn message(&self) -> InterruptMessage {
        self.entry.message()
    }
}
