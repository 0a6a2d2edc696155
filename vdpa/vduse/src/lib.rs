//! VDUSE: vDPA devices that are implemented by a task.
//!
//! A task [creates](Control::create) a device and [opens](Control::open) it; a user attaches it to
//! the vDPA bus, where it is a device like any other: of the kernel's virtio drivers, or of a
//! vhost client. What its driver does reaches the task as [messages](vduse_protocol::Message), each
//! with a deadline, after which the device is broken for good. Requests reach it as [`Job`]s.
//!
//! A task is not trusted. It has no access to memory of the driver: the bytes of a request are
//! copied when it asks for them, as long as it has the request. The rings and the books about them
//! stay on this side, so that a task that dies loses nothing: the next one gets its requests again.
//! Whatever a task says is checked, and what makes no sense is refused and counted.
//!
//! A request has no deadline, as little as with a slow disk; but a device in use whose task has gone
//! is broken if none has come for it when the time for an answer is over.
//!
//! [`serve`] is the frame of a task. Not here: what a device does, and who may create one.
//!
//! Source: Linux, `Documentation/userspace-api/vduse.rst`.

#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod control;
mod device;
mod error;
#[cfg(all(test, loom))]
mod interleavings;
mod mailbox;
mod ops;
mod options;
mod serve;
mod signals;
mod spaces;
mod state;
mod sync;
mod task;
mod vduse_queue;

pub use self::control::{Control, Offer};
pub use self::error::{AttachError, CreateError, DestroyError, OpenError, TaskError};
pub use self::options::Options;
pub use self::serve::{Rest, TaskDevice, Turn, serve};
pub use self::task::Task;
pub use self::vduse_queue::Job;
pub use vduse_protocol as protocol;
