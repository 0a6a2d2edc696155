//! Virtqueues: the rings through which a virtio driver and a virtio device pass buffers.
//!
//! The crate stands alone: it needs an allocator for set-up, a [`DmaAllocator`] for memory that the
//! device can reach, and nothing else. It knows no bus, no kernel and no device type.
//!
//! Buffers are *moved* into a [`Queue`] as a [`Chain`] and come back when the device has used them,
//! so a driver needs neither lifetimes nor `unsafe`. [`Requests`] makes each chain a future.
//! Whatever the device writes is read once and checked; a device that breaks the rules breaks its
//! queue, never the program.
//!
//! The other end, for simulators and back-ends of hypervisors, is in [`device`].
//!
//! # Example
//!
//! A driver lends a buffer to a device, which here lives in the same program:
//!
//! ```
//! use std::sync::Arc;
//! use virtq::testing::{DeviceRing, HeapDma};
//! use virtq::{DeviceHold, DmaAllocator, DmaBuffer, Notify, Queue, QueueConfig, RingFeatures, Writable};
//!
//! let memory = HeapDma::new();
//! let dma: Arc<dyn DmaAllocator> = memory.clone();
//! let features = RingFeatures::NONE.with_event_idx(true);
//! let config = QueueConfig { size: 8, align: 1, features };
//! let mut queue = Queue::new(&config, &dma, &DeviceHold::new())?;
//! let mut device = DeviceRing::new(&memory, queue.addresses(), queue.size(), features);
//!
//! queue.add(Writable(DmaBuffer::new(&dma, 512)?)).expect("the queue is empty");
//! assert_eq!(queue.publish(), Notify::Needed);
//!
//! let request = device.pop().expect("it has been published");
//! device.write(&request, 0, b"hello");
//! device.finish(&request, 5);
//!
//! let used = queue.take()?.expect("it has been used");
//! assert_eq!(&used.chain.0[..5], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: VIRTIO 1.2, sections 2.6 to 2.9.

#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "testing"))]
extern crate std;

mod arena;
mod copy;
pub mod device;
mod device_memory;
mod dma;
mod doorbell;
mod doorbell_switch;
mod driver;
mod event;
mod format;
mod placed;
mod shared;
mod statistics;
#[cfg(feature = "testing")]
pub mod testing;

pub use arena::{Arena, ArenaError};
pub use device_memory::DeviceMemory;
pub use dma::{AddressSpaceId, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError};
pub use doorbell::{Doorbell, NotifyFormat};
pub use doorbell_switch::DoorbellSwitch;
pub use driver::{
    AddError, AddReason, Broken, Chain, CreateError, DeviceHold, Exchange, IndirectTable, Notify,
    Pending, Queue, QueueConfig, Readable, RequestError, RequestReason, Requests, RewindError,
    Segment, StillHeld, Submission, TableWriter, Token, Used, UsedWatch, Writable,
};
pub use event::Event;
pub use format::{RingAddresses, RingFeatures, RingState};
pub use placed::{PlacedDma, Placement};
pub use shared::{AccessError, SharedMemory};
pub use statistics::{Snapshot, Statistics};
