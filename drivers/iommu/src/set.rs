//! All IOMMUs of the machine.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{fmt, ptr};

use spin::Mutex;
use vdpa::dma::IsolationUnit;
use vdpa::platform::IommuDomain;

use crate::{Interrupt, InterruptSource, Iommu, RemapError, RemappedInterrupt};

/// All IOMMUs of the machine. One can come later: a virtio-iommu is a device itself.
#[derive(Default)]
pub struct Iommus {
    list: Mutex<Vec<Arc<dyn Iommu>>>,
}

impl Iommus {
    /// A machine without IOMMUs.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds one.
    pub fn add(&self, iommu: Arc<dyn Iommu>) {
        self.list.lock().push(iommu);
    }

    /// Takes one away that does not work any more.
    pub fn remove(&self, iommu: &Arc<dyn Iommu>) {
        let is_it = |other: &Arc<dyn Iommu>| ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(iommu));
        let removed: Vec<_> = self
            .list
            .lock()
            .extract_if(.., |other| is_it(other))
            .collect();
        // Not while others wait for the list.
        drop(removed);
    }

    /// All of them, in the order in which they came.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<dyn Iommu>> {
        self.list.lock().clone()
    }

    /// The first that the unit's requests pass through. An IOMMU for whatever no other covers comes
    /// last.
    #[must_use]
    pub fn of(&self, unit: &IsolationUnit) -> Option<Arc<dyn Iommu>> {
        self.find(|iommu| iommu.covers(unit))
    }

    /// An empty domain for the unit: what [`Platform::isolate`](vdpa::Platform::isolate) is about.
    #[must_use]
    pub fn isolate(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        self.of(unit)?.domain(unit)
    }

    /// Lets a source raise an interrupt. `None`, if no IOMMU remaps its interrupts: it sends the
    /// message as it is.
    pub fn remap(
        &self,
        source: InterruptSource<'_>,
        interrupt: Interrupt,
    ) -> Option<Result<Box<dyn RemappedInterrupt>, RemapError>> {
        let iommu = match source {
            InterruptSource::Unit(unit) => self.of(unit),
            InterruptSource::IoApic(id) => self.find(|iommu| iommu.covers_io_apic(id)),
        };
        iommu?.remap(source, interrupt)
    }

    fn find(&self, condition: impl Fn(&dyn Iommu) -> bool) -> Option<Arc<dyn Iommu>> {
        let list = self.list.lock();
        list.iter().find(|iommu| condition(&***iommu)).cloned()
    }
}

impl fmt::Debug for Iommus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&*self.list.lock()).finish()
    }
}
