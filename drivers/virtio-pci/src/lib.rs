//! Modern virtio over PCI: a function with its registers, and the vDPA device that it is.
//!
//! [`VirtioFunction`] moves bits to and from registers and checks what the function says of itself;
//! [`Parent`] makes the operations of a vDPA device of them. Which functions are driven, and what
//! they can do beyond the specification, is the business of the drivers that use this: [`vp_vdpa`]
//! and [`ifcvf`].
//!
//! Source: VIRTIO 1.2, 3 and 4.1.

#![no_std]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

mod binding;
mod capability;
mod common;
mod config_fields;
mod deadline;
mod demands;
mod discovery;
mod function;
pub mod ifcvf;
mod interrupts;
mod notification;
mod ops;
mod parent;
mod queue_state;
mod queues;
mod states;
mod suspend;
mod unsuitable;
pub mod vp_vdpa;
mod window;

pub use capability::{ANY_BAR, Defect, LayoutError, Structure};
pub use common::{CommonConfig, NO_VECTOR, QueueRegisters};
pub use function::{IsrStatus, OpenError, VirtioFunction};
pub use parent::Parent;
pub use unsuitable::Unsuitable;
