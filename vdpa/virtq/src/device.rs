//! The device side of a virtqueue: what Linux calls vringh, for simulators, VDUSE and vhost-user.
//!
//! A [`DeviceQueue`] takes the chains that a driver offers, copies to and from them, and gives them
//! back. It reaches the driver's memory through a [`Memory`] alone, directly or translated, and
//! tells a [`DirtyLog`] what it writes. Nothing that the driver writes is believed: each descriptor
//! is read once into private memory and checked, and the first violation breaks the queue
//! ([`Broken`]).
//!
//! It knows no device type, no transport and no vhost, and allocates nothing after set-up.
//!
//! Source: VIRTIO 1.2, 2.6 to 2.8.

mod area;
mod chain;
mod completion;
mod config;
mod descriptor;
mod direct;
mod dirty;
mod error;
mod memory;
mod order;
mod packed;
mod pieces;
mod pool;
mod queue;
mod ring;
mod split;
mod tlb;
mod transfer;
mod translated;

pub use chain::Chain;
pub use config::{DeviceConfig, NewError};
pub use direct::{Direct, OverlapError, Region};
pub use dirty::DirtyLog;
pub use error::{Broken, CompleteError, PopError};
pub use memory::{Access, Fault, Memory, Piece};
pub use pieces::{Pieces, TransferError};
pub use queue::{Counters, DeviceQueue};
pub use tlb::{DeviceTlb, Lookup, Mapped};
pub use translated::{Translate, Translated, Translation};
