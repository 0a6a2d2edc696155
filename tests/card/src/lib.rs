//! A model of an Intel IFC VF, register by register: configuration space, virtio structures, MSI-X
//! and the live-migration block, with rings that work. Without what is Intel's own it is a function
//! of plain virtio.
//!
//! It is for tests of a driver, in the same process or behind an emulator. It plays the card by the
//! specifications and by what public drivers say of the hardware, notes what the driver does that
//! those forbid ([`Card::violations`]), and misbehaves on request ([`Faults`]). It drives no card
//! and knows no driver.
//!
//! A machine with a [`Card`] passes on the accesses to its configuration space and its BARs, gives
//! it the memory that it reaches ([`GuestMemory`]), carries its interrupts ([`Host`]), and calls
//! [`Card::serve`] when a queue was notified or something has arrived behind it.
//!
//! Sources: VIRTIO 1.2, 4.1 and 5; PCI Local Bus 3.0; the `ifcvf` driver of Linux and the `ifc`
//! driver of DPDK for what is Intel's own.

mod blk;
mod card;
mod common;
mod config_access;
mod config_space;
mod engine;
mod looks;
mod migration;
mod msix;
mod net;
mod pages;
mod places;
mod plan;
mod product;
mod queue_registers;
mod rings;
mod serve;
mod state;
mod storage;
#[cfg(feature = "vfio-user")]
pub mod vfio_user;
mod violations;
mod wire;

use std::sync::Arc;

pub use card::{Card, Counters, Function, Host, Served};
pub use migration::{BlockWrite, Layout};
pub use msix::Message;
pub use net::NetSettings;
pub use plan::{
    BlkStop, Delay, Doorbells, Faults, Generation, IdleWrites, ListFault, MsixTable, Place, Plan,
    PlanError, Refused, VectorOf, VirtioCap,
};
pub use product::{Id, Kind, Product, UnknownProduct};
pub use storage::{FileDisk, RamDisk, Storage};
pub use wire::{Loopback, Wire};

/// The memory that a card reaches, by the addresses that its driver uses.
pub type GuestMemory = Arc<dyn virtq::device::Memory + Send + Sync>;
