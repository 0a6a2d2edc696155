//! Memory that the driver side of `virtio-drivers` shares with a device.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use virtq::{DmaAddr, DmaAllocator, DmaBlock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::guest_ram::GuestRam;

/// The crate's `Hal` has no `self`, so all queues of a test program share one memory.
static RAM: LazyLock<GuestRam> = LazyLock::new(|| GuestRam::new(16 << 20));

/// What the device reaches.
pub fn memory() -> Arc<GuestMemoryMmap> {
    RAM.memory()
}

/// Memory of which the device sees a copy only, as in an encrypted virtual machine.
pub struct Bounce;

// SAFETY: blocks are a part of their own of a mapping that is never given up.
unsafe impl Hal for Bounce {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let block = RAM.allocate(layout(pages * PAGE_SIZE)).expect("memory");
        (block.addr.0, block.ptr)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        let block = DmaBlock {
            ptr: vaddr,
            addr: DmaAddr(paddr),
            layout: layout(pages * PAGE_SIZE),
        };
        // SAFETY: the caller gives back what `dma_alloc` has returned.
        unsafe { RAM.deallocate(block) };
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("a queue has no registers")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let block = RAM.allocate(layout(buffer.len())).expect("memory");
        // SAFETY: the caller lends a valid buffer.
        let bytes = unsafe { buffer.as_ref() };
        memory()
            .write_slice(bytes, GuestAddress(block.addr.0))
            .expect("inside the memory");
        block.addr.0
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let addr = GuestAddress(paddr);
        let memory = memory();
        let ptr = memory.get_host_address(addr).expect("inside the memory");
        let ptr = NonNull::new(ptr).expect("a mapping does not start at zero");
        if direction == BufferDirection::DeviceToDriver {
            // SAFETY: the caller lends a valid buffer that nobody else uses.
            let bytes = unsafe { buffer.as_mut() };
            memory.read_slice(bytes, addr).expect("inside the memory");
        }
        let block = DmaBlock {
            ptr,
            addr: DmaAddr(paddr),
            layout: layout(buffer.len()),
        };
        // SAFETY: `share` has allocated it for a buffer of this length.
        unsafe { RAM.deallocate(block) };
    }
}

fn layout(size: usize) -> Layout {
    let align = if size < PAGE_SIZE { 16 } else { PAGE_SIZE };
    Layout::from_size_align(size, align).expect("a small size")
}
