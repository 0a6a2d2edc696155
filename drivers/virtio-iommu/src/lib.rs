//! The driver of virtio IOMMU devices (VIRTIO 1.2, 5.13).
//!
//! [`IommuDriver`] sits on the virtio bus and makes an [`Iommu`](iommu::Iommu) of each device. From
//! then on an endpoint that is in no domain reaches nothing.
//!
//! Such an IOMMU takes mappings away as it was given them and not in part, and one that is there
//! cannot be replaced. So where a part of a mapping is taken away, all of it is, and what is left is
//! mapped again: a device that uses the rest at that moment faults.
//!
//! Requests are waited for, each up to a deadline, without a task in between: a change of a mapping
//! is over when the call returns. An IOMMU that misses a deadline is out of use and gets reset,
//! after which nothing is in a domain.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod change;
mod config;
mod domain;
mod driver;
mod error;
mod event;
mod handle;
mod message;
mod probe;
mod request;
mod request_queue;
mod shared;
mod topology;
mod worker;

pub use driver::IommuDriver;
pub use error::Unsuitable;
pub use topology::Topology;
