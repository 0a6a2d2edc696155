//! Why something is refused: to the maker of a device, to its user, or to its task.

use vduse_protocol::{ConfigError, DecodeError};
use virtq::device::Fault;

/// Why a device cannot be created. Nothing is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// Linux would not make it either.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It offers a feature of the rings or of the transport that this parent does not have, or
    /// lacks `VERSION_1`.
    #[error("a feature of the transport is missing, or not one that there is")]
    Features,
    /// A feature of the protocol is unknown.
    #[error("unknown features of the protocol")]
    ProtocolFeatures,
    /// There are more than 64 queues, groups or address spaces, or none.
    #[error("a device has between 1 and 64 queues, and at most 64 groups and address spaces")]
    Count,
    /// No request can be with the task, or too many.
    #[error("between 1 and 256 requests of a queue can be with a task")]
    InFlight,
    /// The time for an answer is zero, or longer than the bus waits.
    #[error("a task has between a millisecond and 25 seconds for an answer")]
    Deadline,
    /// There is a device of this name.
    #[error("there is a device of this name")]
    Exists,
}

/// Why a device cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such device.
    #[error("there is no device of this name")]
    NoDevice,
    /// Another task has it.
    #[error("another task has the device")]
    Busy,
}

/// Why a device cannot be attached to the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is no such device.
    #[error("no task offers a device of this name")]
    NoDevice,
    /// It is on the bus.
    #[error("the device is on the bus")]
    Busy,
    /// Its task has not said how large each of its queues can be.
    #[error("the task has not set up the queues of the device")]
    NotSetUp,
    /// Its task has not answered in time.
    #[error("the device is broken")]
    Broken,
}

/// Why a device cannot be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestroyError {
    /// There is no such device.
    #[error("there is no device of this name")]
    NoDevice,
    /// It is on the bus, or a task has it.
    #[error("the device is in use")]
    Busy,
}

/// What a task has done wrong. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The device is broken: it has not answered in time, or has lied. It can be closed alone.
    #[error("the device is broken")]
    Broken,
    /// The bytes are no answer.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Nobody has asked, or waits any more.
    #[error("nobody waits for this answer")]
    Nobody,
    /// There is no such queue, or the range does not lie in the configuration space.
    #[error("no such queue, or no such place in the configuration space")]
    OutOfRange,
    /// The device is on the bus: its queues are what they are.
    #[error("the device is on the bus")]
    Attached,
    /// The queue's size or group is none that a queue can have.
    #[error("not a size or a group of a queue")]
    Setup,
    /// The driver has not started the device, or it is suspended.
    #[error("the driver has not started the device, or has suspended it")]
    NotRunning,
    /// The queue is not in use.
    #[error("the queue is not in use")]
    NotReady,
    /// The task has no such request: it has answered it, or the driver has taken it back.
    #[error("the task does not have this request")]
    NoJob,
    /// Memory of the request is not mapped.
    #[error("memory of the request: {0}")]
    Fault(Fault),
}
