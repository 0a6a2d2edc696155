//! Devices of virtio that a program implements, for Linux: the programs behind `/dev/vduse`.
//!
//! [`Control`] creates and destroys devices, [`DeviceFile`] is one of them with the calls that it
//! has, and a [`Server`] serves its queues with threads of its own, until the kernel is done with
//! it. What the device does with a request is up to a [`Service`]. A program may be killed at any
//! time: the device stays, and the next program goes on with what is in its queues.
//!
//! Not here: the bytes of the protocol ([`vduse_protocol`]), and the rings ([`virtq`]).
//!
//! Source: Linux, Documentation/userspace-api/vduse.rst and `include/uapi/linux/vduse.h`.

#![deny(unsafe_code)]

mod calls;
mod control;
mod device_file;
mod error;
mod journal;
mod mapping;
mod memory;
mod queue;
mod redo;
mod server;
mod service;
#[cfg(test)]
mod testing;

pub use self::control::{Control, Created};
pub use self::device_file::DeviceFile;
pub use self::error::{Error, QueueError};
pub use self::journal::Journal;
pub use self::memory::QueueMemory;
pub use self::server::{QueueOptions, Server};
pub use self::service::Service;
pub use vduse_protocol::{ApiVersion, DeviceConfig};
