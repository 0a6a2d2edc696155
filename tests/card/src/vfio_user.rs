//! The card as a device of another process: a server of vfio-user, for QEMU's
//! `-device vfio-user-pci`.
//!
//! One thread answers one client and lets the card work in between. The client keeps the MSI-X
//! table and shares the guest's memory, so that the card serves its queues there without asking.
//! Not a server for any device: the regions and interrupts are those of this card.
//!
//! Sources: QEMU, docs/interop/vfio-user.rst and docs/system/devices/vfio-user.rst.

mod cable;
mod connection;
mod device;
mod fields;
mod memory;
mod misbehaviour;
mod orders;
mod server;
mod session;
mod vectors;

pub use cable::{Cable, Plug};
pub use connection::ConnectionError;
pub use misbehaviour::{BadCapabilities, Misbehaviour, UnknownMisbehaviour};
pub use server::{Backend, ServeError, Server};
