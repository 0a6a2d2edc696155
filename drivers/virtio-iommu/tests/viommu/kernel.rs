//! A kernel in whose time the IOMMU works: whenever somebody looks at the clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{BoxFuture, Callback, InterruptVector, MapError, Mmio, NoVector, PhysAddr};
use vdpa::testing::FakePlatform;
use virtq::DmaAllocator;

use crate::model::Model;

/// What passes with each look at the clock.
const TICK: Duration = Duration::from_micros(100);

#[derive(Debug)]
pub(crate) struct Kernel {
    platform: Arc<FakePlatform>,
    model: Mutex<Option<Arc<Model>>>,
}

impl Kernel {
    pub(crate) fn new(platform: &Arc<FakePlatform>) -> Arc<Self> {
        Arc::new(Self {
            platform: Arc::clone(platform),
            model: Mutex::default(),
        })
    }

    /// From now on this IOMMU works.
    pub(crate) fn let_work(&self, model: &Arc<Model>) {
        *self.model.lock().unwrap() = Some(Arc::clone(model));
    }
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
        let model = self.model.lock().unwrap().clone();
        if let Some(model) = model {
            model.work();
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
