//! The kernel as the drivers see it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use vdpa::platform::{
    BoxFuture, Callback, ConnectedLine, InterruptLine, InterruptVector, MapError, Mmio, NoLine,
    NoVector, PhysAddr, Platform,
};
use virtq::DmaAllocator;

use crate::machine::interrupts::line;
use crate::machine::interrupts::vectors::DeviceVector;
use crate::machine::memory::dma::HeapDma;
use crate::machine::memory::heap;
use crate::machine::memory::mmio::Registers;
use crate::machine::task;
use crate::machine::time::clock;
use crate::pure::acpi::InterruptLines;

/// This kernel's services.
#[derive(Debug)]
pub(crate) struct KernelPlatform {
    dma: Arc<HeapDma>,
    lines: InterruptLines,
}

impl KernelPlatform {
    /// The services of a machine with these interrupt lines.
    pub(crate) fn new(lines: InterruptLines) -> Self {
        Self {
            dma: Arc::new(HeapDma),
            lines,
        }
    }
}

// SAFETY: memory is the heap's, registers are never memory, and a vector is taken once.
unsafe impl Platform for KernelPlatform {
    fn dma(&self) -> Arc<dyn DmaAllocator> {
        Arc::<HeapDma>::clone(&self.dma)
    }

    unsafe fn map_mmio(&self, base: PhysAddr, len: u64) -> Result<Arc<dyn Mmio>, MapError> {
        Ok(Arc::new(Registers::map(base, len)?))
    }

    fn allocate_vector(
        &self,
        source: Option<&IsolationUnit>,
        handler: Callback,
    ) -> Result<Box<dyn InterruptVector>, NoVector> {
        Ok(Box::new(DeviceVector::for_message(handler)?))
    }

    fn memory_left(&self) -> u64 {
        heap::figures().left_for_simulators()
    }

    fn connect_line(
        &self,
        line: InterruptLine,
        handler: Callback,
    ) -> Result<Box<dyn ConnectedLine>, NoLine> {
        Ok(Box::new(line::connect(&self.lines, line, handler)?))
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
