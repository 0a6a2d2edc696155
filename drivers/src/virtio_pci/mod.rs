//! Modern virtio over PCI: where the structures of a function lie, and how its registers are used.
//!
//! This is what the parents of such functions share. It moves bits to and from registers and checks
//! what the function says of itself; when to do what is the parent's business.
//!
//! Source: VIRTIO 1.2, 4.1.

mod capability;
mod common;
mod function;
mod notification;

pub use capability::{Defect, LayoutError, Structure};
pub use common::{CommonConfig, NO_VECTOR, QueueRegisters};
pub use function::{IsrStatus, OpenError, VirtioFunction};
