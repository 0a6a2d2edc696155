//! A kernel in whose time the IOMMU works: whenever somebody looks at the clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{BoxFuture, Callback, InterruptVector, MapError, Mmio, NoVector, PhysAddr};
use vdpa::testing::FakePlatform;
use virtq::DmaAllocator;

use super::device::Device;

/// What passes with each look at the clock.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Kernel {
    pub platform: Arc<FakePlatform>,
    pub device: Mutex<Option<Arc<Device>>>,
}

// SAFETY: everything is the fake platform's.
unsafe impl Platform for Kernel {
    fn dma(&self) -> Arc<dyn DmaAllocator> {
        self.platform.dma()
    }

    unsafe fn map_mmio(&self, base: PhysAddr, len: u64) -> Result<Arc<dyn Mmio>, MapError> {
        // SAFETY: the caller's promise.
        unsafe { self.platform.map_mmio(base, len) }
    }

    fn allocate_vector(
        &self,
        source: Option<&IsolationUnit>,
        handler: Callback,
    ) -> Result<Box<dyn InterruptVector>, NoVector> {
        self.platform.allocate_vector(source, handler)
    }

    fn now(&self) -> Duration {
        let device = self.device.lock().expect("nobody panics").clone();
        if let Some(device) = device {
            device.work();
        }
        self.platform.advance(TICK);
        self.platform.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.platform.sleep(duration)
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) {
        self.platform.spawn(name, task);
    }
}
