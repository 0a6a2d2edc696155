//! The driver side of a virtqueue: chains go in, used chains come out.

mod chain;
mod error;
mod hold;
mod memory;
mod packed;
mod queue;
mod requests;
mod ring;
mod ring_config;
mod split;
mod table;
mod types;
mod used_watch;

pub use chain::{Chain, Exchange, Readable, Segment, Writable};
pub use error::{AddError, AddReason, Broken, CreateError, RewindError, StillHeld};
pub use hold::DeviceHold;
pub use queue::Queue;
pub use requests::{RequestError, RequestReason, Requests, Submission};
pub use table::{IndirectTable, TableWriter};
pub use types::{Notify, Pending, QueueConfig, Token, Used};
pub use used_watch::UsedWatch;
