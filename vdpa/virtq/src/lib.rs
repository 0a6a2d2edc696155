//! Virtqueues: the rings through which a virtio driver and a virtio device pass buffers.
//!
//! The crate stands alone: it needs an allocator for set-up, a [`DmaAllocator`] for memory that the
//! device can reach, and nothing else. It knows no bus, no kernel and no device type.
//!
//! Buffers are *moved* into a [`Queue`] as a [`Chain`] and come back when the device has used them,
//! so a driver needs neither lifetimes nor `unsafe`. [`Requests`] makes each chain a future. Whatever
//! the device writes is read once and checked; a device that breaks the rules breaks its queue,
//! never the program.
//!
//! Source: VIRTIO 1.2, sections 2.6 and 2.7.

#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "testing"))]
extern crate std;

mod chain;
mod dma;
mod doorbell;
mod event;
mod hold;
mod queue;
mod requests;
mod split;
mod statistics;
#[cfg(feature = "testing")]
pub mod testing;

pub use chain::{Chain, Readable, Segment, Writable};
pub use dma::{DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError};
pub use doorbell::Doorbell;
pub use event::Event;
pub use hold::DeviceHold;
pub use queue::{
    AddError, AddReason, Broken, CreateError, Notify, Pending, Queue, QueueConfig, RingAddresses,
    RingFeatures, Token, Used,
};
pub use requests::{RequestError, RequestReason, Requests, Submit};
pub use statistics::{Snapshot, Statistics};
