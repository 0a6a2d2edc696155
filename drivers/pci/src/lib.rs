//! PCI: finding functions, and what a driver needs of one.
//!
//! [`PciRoot`] enumerates a segment through a [`ConfigAccess`] (ports or memory), assigns what
//! firmware left unassigned, and puts every function on the [`PciBus`]. A driver claims a function
//! ([`PciDevice::claim`]) and holds its registers, its interrupts and its place on the bus as
//! values; dropping them puts configuration space back as it was found.
//!
//! No driver is here, and nothing of virtio.
//!
//! Source: PCI Local Bus 3.0; PCI-to-PCI Bridge 1.2; PCI Express Base 6.0.

#![no_std]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

mod access;
mod assign;
mod bar;
mod bridge;
mod capability;
mod card;
mod claim;
mod class;
mod command;
mod device;
mod ecam;
mod enumeration;
mod function;
mod header;
mod hotplug;
mod id;
mod isolation;
mod msix;
mod port;
mod root;
mod routing_id;
mod scan;
mod segment;
mod slot;
mod sriov;
mod sriov_capability;
pub mod tool;

pub use access::{ConfigAccess, ConfigSpace};
pub use assign::Windows;
pub use bar::{Bar, BarError, BarKind, Bars};
pub use capability::{
    Capability, CapabilityError, ExtendedCapability, VENDOR_SPECIFIC, capabilities,
    extended_capabilities,
};
pub use claim::{BusMaster, Claim, Registers, ResourceError};
pub use device::{PciBus, PciDevice};
pub use ecam::{Ecam, EcamRegion};
pub use header::Identity;
pub use hotplug::PortDriver;
pub use id::PciId;
pub use msix::{Msix, MsixError, Vector};
#[cfg(target_arch = "x86_64")]
pub use port::X86Ports;
pub use port::{ConfigPorts, PortConfig};
pub use root::PciRoot;
pub use routing_id::function_address;
pub use sriov::{SrIov, SrIovError};
