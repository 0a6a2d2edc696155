//! What can go wrong, and with what.

use std::io;

use vduse_protocol::{ConfigError, DecodeError};
use virtq::device::{Broken, CompleteError, Fault, NewError};

/// Why a device cannot be made or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no VDUSE.
    #[error("there is no /dev/vduse/control: load the module vduse")]
    NoVduse,
    /// There is no such device.
    #[error("there is no device of this name in /dev/vduse")]
    NoDevice,
    /// Another program serves the device.
    #[error("another program serves the device")]
    Served,
    /// A device is attached to the vDPA bus, or served.
    #[error("the device is in use: `vdpa dev del` takes it off its bus")]
    InUse,
    /// A call of the system failed.
    #[error("{call}: {error}")]
    Call {
        /// Which.
        call: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The kernel makes no such device.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel has said what means nothing.
    #[error("the kernel's answer means nothing: {0}")]
    Decode(#[from] DecodeError),
    /// There is no such queue.
    #[error("the kernel asks for queue {0}, which is not there")]
    NoQueue(u32),
    /// What was served before cannot be served on.
    #[error("queue {0}: {1}")]
    Queue(u16, Box<QueueError>),
    /// The kernel has closed the device.
    #[error("the kernel has closed the device")]
    Closed,
}

impl Error {
    /// Says which call an error is of.
    pub(crate) fn of(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Call { call, error }
    }
}

/// Why a queue is not served, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The driver has set up what cannot be.
    #[error("the queue cannot be: {0}")]
    New(#[from] NewError),
    /// It has too many entries.
    #[error("a queue of {0} entries cannot be")]
    Size(u32),
    /// A part of the ring cannot be reached.
    #[error("a part of the ring cannot be reached: {0}")]
    Outside(#[from] Fault),
    /// Chains are in flight in the state that it is to go on from.
    #[error("the queue's state has chains in flight")]
    InFlight,
    /// Another program served the packed queue, and has left no note of where it stood.
    #[error("a packed queue was served by another program, and no journal says where it stands")]
    NoJournal,
    /// The driver has broken it.
    #[error("the driver has broken the queue: {0}")]
    Broken(#[from] Broken),
    /// A chain could not be given back.
    #[error("a chain could not be given back: {0}")]
    Complete(#[from] CompleteError),
    /// The service has panicked over a request, of which nobody knows what it has done.
    #[error("the device has panicked over a request")]
    Panicked,
    /// The kernel does not do what a queue needs.
    #[error(transparent)]
    Device(#[from] Box<Error>),
}

impl From<Error> for QueueError {
    fn from(error: Error) -> Self {
        Self::Device(Box::new(error))
    }
}
