//! For tests on a host: memory that a "device" reaches by address, and a device side by the specification.

mod device_ring;
mod heap_dma;

pub use device_ring::{DeviceRing, Request};
pub use heap_dma::{Fault, HeapDma};
