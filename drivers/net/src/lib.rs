//! The driver of virtio network devices (VIRTIO 1.2, 5.1).
//!
//! [`NetDriver`] sits on the virtio bus and makes a [`NetDevice`] of each network device, which a
//! network stack drives: `embassy-net`, or `smoltcp` itself with the cargo feature `smoltcp`. One
//! pair of queues is used; segmentation is left to the stack. With [`Control`] an application
//! changes what the device is, where it can be changed.

#![no_std]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

mod checksum;
mod config;
mod control;
mod counters;
mod device;
mod driver;
mod drop_reason;
mod embassy;
mod header;
mod receive;
mod shared;
#[cfg(feature = "smoltcp")]
mod smoltcp;
mod transmit;
mod wait;

pub use control::{Control, ControlError, Switch};
pub use device::NetDevice;
pub use driver::{NetDriver, NetOptions, Unsuitable};
pub use receive::RxToken;
pub use transmit::TxToken;
pub use vdpa::MacAddress;
