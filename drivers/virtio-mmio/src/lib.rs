//! `virtio_mmio`: the parent driver for virtio devices whose registers lie in memory, without a
//! bus.
//!
//! Nobody can find such devices: a [`Description`] says where one is, from the command line or from
//! firmware, and [`VirtioMmio`] puts it on the vDPA bus. Only devices of version 2 are driven; the
//! interface from before VIRTIO 1.0 is refused. What the device lacks (the state of a running
//! queue, stopping a single queue without `RING_RESET`) is reported as unsupported, not imitated.
//!
//! Source: VIRTIO 1.2, 3 and 4.2.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod attach;
mod description;
mod interrupts;
mod ops;
mod parent;
mod registers;

pub use attach::VirtioMmio;
pub use description::{BadDescription, Description};
pub use parent::{Parent, ProbeError};
