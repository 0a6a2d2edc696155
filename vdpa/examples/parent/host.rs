//! What a kernel brings along: here memory from the heap, threads, and the clock of the host.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use embassy_futures::block_on;
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{BoxFuture, Callback, InterruptVector, MapError, Mmio, NoVector, PhysAddr};
use virtq::{DmaAddr, DmaAllocator, DmaBlock, DmaError, Event};

/// A program as a kernel for devices that are programs: it has no registers and no interrupts.
#[derive(Debug)]
pub struct Host {
    start: Instant,
}

impl Host {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
        })
    }
}

// SAFETY: memory is the heap's; there is nothing else.
unsafe impl Platform for Host {
    fn dma(&self) -> Arc<dyn DmaAllocator> {
        Arc::new(Pages)
    }

    unsafe fn map_mmio(&self, _base: PhysAddr, _len: u64) -> Result<Arc<dyn Mmio>, MapError> {
        Err(MapError)
    }

    fn allocate_vector(
        &self,
        _source: Option<&IsolationUnit>,
        _handler: Callback,
    ) -> Result<Box<dyn InterruptVector>, NoVector> {
        Err(NoVector)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let over = Arc::<Event>::default();
        let alarm = Arc::clone(&over);
        Box::pin(async move {
            thread::spawn(move || {
                thread::sleep(duration);
                alarm.raise();
            });
            over.wait().await;
        })
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) {
        let thread = thread::Builder::new().name(name.to_owned());
        let spawned = thread.spawn(|| block_on(task));
        spawned.expect("the host has a thread left");
    }
}

/// Memory from the heap. The device of this program reaches it through its address space alone.
struct Pages;

// SAFETY: the blocks are the heap's, zeroed and exclusive, at addresses of their own.
unsafe impl DmaAllocator for Pages {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::OutOfMemory)?;
        let addr = DmaAddr(ptr.addr().get() as u64);
        Ok(DmaBlock { ptr, addr, layout })
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        // SAFETY: the block is one of `allocate`, with its layout.
        unsafe { dealloc(block.ptr.as_ptr(), block.layout) };
    }
}
