//! The vDPA bus: one device, two kinds of consumers.
//!
//! A parent driver (a PCI function, a simulator) offers a device whose data path follows the virtio
//! specification through [`VdpaOps`]. On the [vDPA bus](device) a bus driver claims it:
//! `virtio_vdpa` makes it a device of the virtio bus, where the net and blk drivers are.
//!
//! ```text
//! pci 0000:00:04.0 -> vdpa0 -> [vDPA bus] -> virtio_vdpa -> virtio0 -> [virtio bus] -> net0
//! ```
//!
//! The crate knows no PCI and no kernel. What it needs from one comes through [`Platform`].

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod backing;
pub mod blk;
pub mod bus;
pub mod checksum;
pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod device;
pub mod dirty;
pub mod dma;
mod error;
pub mod features;
pub mod ids;
pub mod iotlb;
#[cfg(any(test, feature = "conformance", feature = "testing"))]
pub mod keeper;
mod mac;
pub mod moving;
pub mod ops;
pub mod platform;
pub mod power;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tree;
pub mod wait;

pub use features::Features;
pub use mac::{BadMacAddress, MacAddress};
pub use ops::VdpaOps;
pub use platform::Platform;
pub use tree::Node;
pub use virtq;
