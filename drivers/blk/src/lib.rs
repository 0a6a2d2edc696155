//! The driver of virtio block devices (VIRTIO 1.2, 5.2).
//!
//! [`BlkDriver`] sits on the virtio bus and makes a [`Disk`] of each block device. One request
//! queue is used; discarding and zoned disks are not supported.

#![no_std]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

mod copy;
mod disk;
mod driver;
mod error;
mod limits;
mod operations;
mod pool;
mod slot;
mod worker;

pub use disk::Disk;
pub use driver::BlkDriver;
pub use error::{BlkError, Unsuitable};
pub use limits::SECTOR_LEN;
