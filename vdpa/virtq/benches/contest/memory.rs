//! Memory that both sides of every queue share.

use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

use virtq::{DmaAddr, DmaAllocator};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::guest_ram::GuestRam;

static RAM: LazyLock<Arc<GuestRam>> = LazyLock::new(|| Arc::new(GuestRam::new(64 << 20)));

/// The memory, for a driver side.
pub(super) fn allocator() -> Arc<dyn DmaAllocator> {
    Arc::clone(&RAM) as Arc<dyn DmaAllocator>
}

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
