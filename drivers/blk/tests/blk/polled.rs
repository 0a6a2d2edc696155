//! A disk without interrupts: its task looks again and again, between the turns of others.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use vdpa::Platform;
use vdpa::device::{Removal, Removed};
use vdpa::dma::IsolationUnit;
use vdpa::platform::{BoxFuture, Callback, InterruptVector, MapError, Mmio, NoVector, PhysAddr};
use vdpa::testing::FakePlatform;
use virtio_blk::BlkDriver;
use virtio_bus::Completion;
use virtio_bus::Registry;
use virtq::DmaAllocator;

use crate::fixture::{Blk, Medium, Setup};

/// A kernel that gives each task one turn after the other, however much it has to do.
#[derive(Debug)]
struct TakingTurns {
    platform: Arc<FakePlatform>,
    tasks: Tasks,
}

#[derive(Default)]
struct Tasks(Mutex<Vec<BoxFuture<'static, ()>>>);

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tasks")
    }
}

impl TakingTurns {
    fn turn(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        let tasks = std::mem::take(&mut *self.tasks.0.lock().expect("no test panics in a task"));
        for mut task in tasks {
            if task.as_mut().poll(&mut cx).is_pending() {
                self.spawn("", task);
            }
        }
    }
}

// SAFETY: everything is the fake's within.
unsafe impl Platform for TakingTurns {
    fn dma(&self) -> Arc<dyn DmaAllocator> {
        self.platform.dma()
    }

    unsafe fn map_mmio(&self, base: PhysAddr, len: u64) -> Result<Arc<dyn Mmio>, MapError> {
        // SAFETY: the caller vouches for the range.
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
        self.platform.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.platform.sleep(duration)
    }

    fn spawn(&self, _name: &str, task: BoxFuture<'static, ()>) {
        self.tasks
            .0
            .lock()
            .expect("no test panics in a task")
            .push(task);
    }
}

#[test]
fn requests_complete_without_interrupts_and_removal_ends_the_task() {
    let registry = Registry::new();
    let driver = BlkDriver::with_completion(Arc::clone(&registry), Completion::Polled);
    let platform = FakePlatform::new();
    let kernel = Arc::new(TakingTurns {
        platform: Arc::clone(&platform),
        tasks: Tasks::default(),
    });
    let world = Setup::default().world_on_kernel(platform, Arc::clone(&kernel) as _, driver);
    let blk = Blk::take(world, registry);
    let mut medium = Medium::new(64);
    let mut cx = Context::from_waker(Waker::noop());
    for sector in 0..40 {
        let mut read = pin!(blk.disk.read(sector, blk.disk.buffer(512).unwrap()));
        assert!(read.as_mut().poll(&mut cx).is_pending());
        kernel.turn();
        assert!(read.as_mut().poll(&mut cx).is_pending());
        let seen = blk.next().unwrap();
        let (data, status) = medium.carry_out(&seen);
        blk.answer(&seen, &data, status);
        kernel.turn();
        let Poll::Ready(result) = read.as_mut().poll(&mut cx) else {
            panic!("the request has not ended");
        };
        assert_eq!(result.unwrap()[..], *medium.range(sector, 512));
    }
    assert_eq!(
        blk.world.device().node().report().unwrap().queues[0].interrupts,
        0
    );

    let mut removal = pin!(blk.world.removal(Removal::Orderly));
    let removed = (0..10).find_map(|_| {
        kernel.turn();
        match removal.as_mut().poll(&mut cx) {
            Poll::Ready(removed) => Some(removed),
            Poll::Pending => None,
        }
    });
    assert_eq!(removed, Some(Removed::Clean));
    kernel.turn();
    assert!(kernel.tasks.0.lock().unwrap().is_empty());
    drop(blk.disk);
    assert_eq!(blk.world.memory(), 0);
}
