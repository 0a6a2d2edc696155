//! The driver side of a virtqueue: chains go in, used chains come out.

mod chain;
mod hold;
mod indirect;
mod memory;
mod packed;
mod plan;
mod queue;
mod requests;
mod ring;
mod split;

pub use chain::{Chain, Readable, Segment, Writable};
pub use hold::DeviceHold;
pub use queue::{
    AddError, AddReason, Broken, CreateError, Notify, Pending, Queue, QueueConfig, StillHeld,
    Token, Used,
};
pub use requests::{RequestError, RequestReason, Requests, Submit};
