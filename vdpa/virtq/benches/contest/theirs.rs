//! The other crates, used as their authors do it, in the way that costs them least.

use std::hint::black_box;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use virtq::{DmaAddr, RingAddresses};
use vm_memory::GuestMemoryMmap;

use super::chains::BUFFER_LEN;
use super::counterpart::{SplitDevice, SplitDriver};
use super::fake_transport::FakeTransport;
use super::{Load, SIZE, Work, memory};

/// Sharing a buffer costs nothing: its address is its pointer.
struct Identity;

// SAFETY: a block is a part of its own of a mapping that is never given up.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = std::alloc::Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE);
        let block = memory::allocator()
            .allocate(layout.expect("whole pages"))
            .expect("memory");
        (block.addr.0, block.ptr)
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("a queue has no registers")
    }

    #[inline]
    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.addr().get() as u64
    }

    #[inline]
    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// `virtio-drivers`: `READ` buffers that the device reads and `WRITE` that it writes.
pub(super) struct VirtioDrivers<const READ: usize, const WRITE: usize> {
    queue: VirtQueue<Identity, { SIZE as usize }>,
    device: SplitDevice,
    /// Each chain's slices, made beforehand, and the token of the one in flight.
    chains: Vec<(Slices<READ, WRITE>, u16)>,
}

struct Slices<const READ: usize, const WRITE: usize> {
    inputs: [&'static [u8]; READ],
    outputs: [&'static mut [u8]; WRITE],
}

impl<const READ: usize, const WRITE: usize> VirtioDrivers<READ, WRITE> {
    pub(super) fn new(batch: u16, indirect: bool) -> Self {
        let mut transport = FakeTransport::default();
        let queue = VirtQueue::new(&mut transport, 0, indirect, true).expect("a queue");
        let addresses = transport
            .addresses
            .expect("the driver has set the queue up");
        let buffer = || Box::leak(vec![0; BUFFER_LEN].into_boxed_slice());
        let slices = || Slices {
            inputs: std::array::from_fn(|_| &*buffer()),
            outputs: std::array::from_fn(|_| buffer()),
        };
        let chains = (0..batch).map(|_| (slices(), 0)).collect();
        Self {
            queue,
            device: SplitDevice::new(addresses),
            chains,
        }
    }
}

impl<const READ: usize, const WRITE: usize> Work for VirtioDrivers<READ, WRITE> {
    #[inline]
    fn round(&mut self) {
        for (slices, token) in &mut self.chains {
            // SAFETY: nobody uses the buffers.
            *token = unsafe { self.queue.add(&slices.inputs, &mut slices.outputs) }.expect("room");
        }
        black_box(self.queue.should_notify());
        self.device.serve();
        for (slices, token) in &mut self.chains {
            // SAFETY: only shortens how long the array and the slices in it are lent.
            let outputs = unsafe { &mut *ptr::from_mut(&mut slices.outputs).cast::<[_; WRITE]>() };
            // SAFETY: these are the buffers that were added.
            let len = unsafe { self.queue.pop_used(*token, &slices.inputs, outputs) };
            black_box(len.expect("just used"));
        }
    }
}

/// `virtio-queue`, over memory that is one region.
pub(super) struct VirtioQueue {
    queue: Queue,
    memory: Arc<GuestMemoryMmap>,
    driver: SplitDriver,
    heads: Vec<u16>,
}

impl VirtioQueue {
    pub(super) fn new(addresses: RingAddresses, load: Load) -> Self {
        let halves = |addr: DmaAddr| (Some(addr.0 as u32), Some((addr.0 >> 32) as u32));
        let mut queue = Queue::new(SIZE).expect("a size that both know");
        let (low, high) = halves(addresses.descriptor);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(addresses.driver);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(addresses.device);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(true);
        queue.set_ready(true);
        Self {
            queue,
            memory: memory::guest_memory(),
            driver: SplitDriver::new(addresses, load),
            heads: Vec::with_capacity(usize::from(load.batch)),
        }
    }
}

impl Work for VirtioQueue {
    #[inline]
    fn round(&mut self) {
        self.driver.publish();
        let memory = &*self.memory;
        for chain in self.queue.iter(memory).expect("a good ring") {
            self.heads.push(chain.head_index());
            for descriptor in chain {
                black_box((descriptor.addr(), descriptor.len()));
            }
        }
        for head in self.heads.drain(..) {
            self.queue.add_used(memory, head, 0).expect("memory");
        }
        black_box(self.queue.needs_notification(memory).expect("memory"));
    }
}
