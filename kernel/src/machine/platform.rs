//! The kernel as the drivers see it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

#[cfg(feature = "iommu")]
use pci::ConfigAccess;
use vdpa::dma::IsolationUnit;
#[cfg(feature = "iommu")]
use vdpa::platform::IommuDomain;
use vdpa::platform::{
    BoxFuture, Callback, ConnectedLine, InterruptLine, InterruptVector, MapError, Mmio, NoLine,
    NoVector, PhysAddr, Platform,
};
use virtq::DmaAllocator;

use crate::machine::interrupts::line;
use crate::machine::interrupts::vectors::DeviceVector;
#[cfg(feature = "iommu")]
use crate::machine::iommus::{IommuError, MachineIommus};
use crate::machine::memory::dma::HeapDma;
use crate::machine::memory::heap;
use crate::machine::memory::mmio::Registers;
use crate::machine::task;
use crate::machine::time::clock;
use crate::pure::acpi::InterruptLines;
#[cfg(feature = "iommu")]
use crate::pure::{acpi::IommuTables, command_line::CommandLine, iommu_policy::IommuPolicy};

/// This kernel's services.
#[derive(Debug)]
pub(crate) struct KernelPlatform {
    dma: Arc<HeapDma>,
    lines: InterruptLines,
    #[cfg(feature = "iommu")]
    iommus: Arc<MachineIommus>,
}

impl KernelPlatform {
    /// The services of a machine with these interrupt lines.
    pub(crate) fn new(lines: InterruptLines) -> Self {
        Self {
            dma: Arc::default(),
            lines,
            #[cfg(feature = "iommu")]
            iommus: Arc::default(),
        }
    }

    /// Turns the IOMMUs on that firmware describes, as the command line wants it.
    ///
    /// # Errors
    /// What the command line wants cannot be had.
    #[cfg(feature = "iommu")]
    pub(crate) fn start_iommus(
        self: &Arc<Self>,
        line: &CommandLine,
        tables: &IommuTables,
        segments: &[Arc<dyn ConfigAccess>],
    ) -> Result<(), IommuError> {
        let policy = IommuPolicy::new(line)?;
        let platform = Arc::clone(self) as Arc<dyn Platform>;
        if self.iommus.start(&platform, policy, tables, segments)? {
            self.dma.give_whole_pages();
        }
        Ok(())
    }
}

#[cfg(feature = "iommu")]
impl KernelPlatform {
    /// The IOMMUs of the machine.
    pub(crate) fn iommus(&self) -> &Arc<MachineIommus> {
        &self.iommus
    }
}

// SAFETY: memory is the heap's, registers are never memory, and a vector is taken once.
unsafe impl Platform for KernelPlatform {
    fn dma(&self) -> Arc<dyn DmaAllocator> {
        Arc::<HeapDma>::clone(&self.dma)
    }

    #[cfg(feature = "iommu")]
    fn isolates(&self, unit: &IsolationUnit) -> bool {
        self.iommus.isolates(unit)
    }

    #[cfg(feature = "iommu")]
    fn isolate(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        self.iommus.set().isolate(unit)
    }

    unsafe fn map_mmio(&self, base: PhysAddr, len: u64) -> Result<Arc<dyn Mmio>, MapError> {
        Ok(Arc::new(Registers::map(base, len)?))
    }

    fn allocate_vector(
        &self,
        #[cfg_attr(
            not(feature = "iommu"),
            expect(unused_variables, reason = "any source can raise any vector")
        )]
        source: Option<&IsolationUnit>,
        handler: Callback,
    ) -> Result<Box<dyn InterruptVector>, NoVector> {
        let vector = DeviceVector::for_message(handler)?;
        #[cfg(feature = "iommu")]
        if let Some(source) = source {
            return self.iommus.remap(source, vector);
        }
        Ok(Box::new(vector))
    }

    fn memory_left(&self) -> u64 {
        heap::figures().left_for_simulators()
    }

    fn connect_line(
        &self,
        line: InterruptLine,
        handler: Callback,
    ) -> Result<Box<dyn ConnectedLine>, NoLine> {
        Ok(Box::new(line::connect(
            &self.lines,
            #[cfg(feature = "iommu")]
            self.iommus.set(),
            line,
            handler,
        )?))
    }

    fn now(&self) -> Duration {
        clock::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Box::pin(embassy_time::Timer::after_nanos(nanoseconds))
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) {
        task::spawn_boxed(name, task);
    }
}
