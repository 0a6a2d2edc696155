//! The result of a command.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{ConfigReport, DeviceReport, ManagerReport, QueueStatistics};

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// What can be typed.
    Help(&'static str),
    /// Management devices.
    Managers(Vec<ManagerReport>),
    /// Devices.
    Devices(Vec<DeviceReport>),
    /// Configurations, with the names of their devices.
    Configs(Vec<(String, ConfigReport)>),
    /// The statistics of a queue of this device.
    Statistics(String, QueueStatistics),
    /// It has been done, and there is nothing to say.
    Done,
    /// The device has been deleted, but did not confirm that it has stopped: its memory is not used
    /// again.
    Leaked {
        /// The device.
        device: String,
        /// How many queues it had.
        queues: u64,
    },
}
