//! How a device is made.

use core::time::Duration;

use vduse_protocol::{ApiVersion, ProtocolFeatures};

/// How long a task may take for an answer unless its device is made otherwise.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many requests of a queue can be with a task unless its device is made otherwise.
const IN_FLIGHT: u16 = 32;

/// How a device is made, besides what it is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The version of the protocol.
    pub version: ApiVersion,
    /// What the task can be asked for beyond the version.
    pub features: ProtocolFeatures,
    /// How long the task may take for an answer, and how long there may be no task while the device
    /// is in use. At most 25 seconds.
    pub deadline: Duration,
    /// How many requests of each queue can be with the task at once, at most 256: what bounds the
    /// memory that a queue takes.
    pub in_flight: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: ApiVersion::V1,
            features: ProtocolFeatures(
                ProtocolFeatures::QUEUE_READY.0 | ProtocolFeatures::SUSPEND.0,
            ),
            deadline: DEADLINE,
            in_flight: IN_FLIGHT,
        }
    }
}
