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

pub mod device;
mod dma;
mod doorbell;
mod driver;
mod event;
mod format;
mod handshake;
mod statistics;
#[cfg(feature = "testing")]
pub mod testing;

pub use dma::{DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError};
pub use doorbell::{Doorbell, NotifyFormat};
pub use driver::{
    AddError, AddReason, Broken, Chain, CreateError, DeviceHold, Notify, Pending, Queue,
    QueueConfig, Readable, RequestError, RequestReason, Requests, Segment, StillHeld, Submit,
    Token, Used, Writable,
};
pub use event::Event;
pub use format::{RingAddresses, RingFeatures, RingState};
pub use statistics::{Snapshot, Statistics};
