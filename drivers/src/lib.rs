//! Drivers of the vDPA stack that know hardware or a device type.
//!
//! [`pci`] finds functions and hands out what they own. [`vp_vdpa`] and [`ifcvf`] are the parent drivers that put
//! modern virtio functions on the vDPA bus, any of them and Intel's IFC VFs; [`virtio_pci`] is what they share.
//! [`net`] and [`blk`] drive the devices of the virtio bus, whoever their parent is, and publish what they make in a
//! [`Registry`]. Everything that a driver needs from a kernel comes through [`vdpa::Platform`].

#![no_std]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

pub mod blk;
pub mod ifcvf;
pub mod net;
pub mod pci;
mod registry;
pub mod virtio_pci;
pub mod vp_vdpa;

pub use registry::Registry;
