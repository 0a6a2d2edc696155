//! A virtio disk whose bytes are on an NBD server: the device of a VDUSE task.
//!
//! [`NbdDevice`] takes requests of its driver and is given what the server sends; [`Served`] is what
//! [`vdpa_vduse::serve`] runs. Its user has the connection: it passes bytes both ways and connects
//! again, as [`nbd_client::Client`] wants it.
//!
//! Not here: sockets, time, and when a device is made.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod device;
mod request;
mod served;

pub use self::config::{config, set_up};
pub use self::device::NbdDevice;
pub use self::served::{Served, Signals};

/// How many requests are under way at once: as many as a task gets.
const REQUESTS: usize = 32;
/// The only queue.
const QUEUE: u16 = 0;
const QUEUE_SIZE: u16 = 128;
