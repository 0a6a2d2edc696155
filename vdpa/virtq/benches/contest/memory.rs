//! Memory that both sides of every queue share: one piece, where translation and direct access lead
//! alike.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use virtq::device::{Access, Fault, Lookup, Mapped};
use virtq::{Arena, DeviceMemory, DmaAddr, DmaAllocator, SharedMemory};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::guest_ram::GuestRam;

static RAM: LazyLock<Arc<GuestRam>> = LazyLock::new(|| Arc::new(GuestRam::new(64 << 20)));

static SHARED: LazyLock<SharedMemory> = LazyLock::new(|| {
    let dma = Arc::clone(&RAM) as Arc<dyn DmaAllocator>;
    SharedMemory::new(&dma, 64 << 20).expect("all of the memory")
});

static ARENA: LazyLock<Arc<Arena>> = LazyLock::new(|| {
    Arena::new(SHARED.clone(), base()).expect("the same memory at the same address")
});

fn base() -> DmaAddr {
    SHARED.platform_addr().expect("not a part of an arena")
}

/// The memory, for a driver side.
pub(super) fn allocator() -> Arc<dyn DmaAllocator> {
    Arc::clone(&ARENA) as Arc<dyn DmaAllocator>
}

fn lent() -> DeviceMemory {
    // SAFETY: the only device works on the queues of the driver side.
    unsafe { DeviceMemory::lent(&SHARED) }
}

/// One mapping of everything.
pub(super) struct Everything;

impl Lookup for Everything {
    fn lookup(&self, _addr: DmaAddr, _access: Access) -> Result<Mapped, Fault> {
        let last = base().0 + (SHARED.len() - 1);
        Ok(Mapped {
            first: base(),
            last: DmaAddr(last),
            readable: true,
            writable: true,
            memory: lent(),
            offset: 0,
        })
    }

    fn generation(&self) -> u64 {
        GENERATION.load(Ordering::Acquire)
    }
}

/// As others would change it.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The memory, for a device side.
pub(super) fn guest_memory() -> Arc<GuestMemoryMmap> {
    RAM.memory()
}

/// Where the host finds an address of the device.
pub(super) fn host(addr: DmaAddr) -> NonNull<u8> {
    let ptr = guest_memory()
        .get_host_address(GuestAddress(addr.0))
        .expect("an allocated address");
    NonNull::new(ptr).expect("a mapping does not start at zero")
}
