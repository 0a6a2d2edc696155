//! For tests on a host: memory that a "device" reaches by address, and a device side by the
//! specification.

mod device_ring;
mod heap_dma;
mod heap_memory;
mod packed_device;
mod request;

pub use device_ring::DeviceRing;
pub use heap_dma::{Fault, HeapDma};
pub use heap_memory::HeapMemory;
pub use packed_device::PackedDevice;
pub use request::Request;
