//! The result of a command, and the ways to show it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{ConfigReport, DeviceReport, ManagerReport, QueueStatistics};

use super::{json, text};

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
    /// The device has been deleted, but did not confirm that it has stopped: its memory is not used again.
    Leaked {
        /// The device.
        device: String,
        /// How many queues it had.
        queues: u64,
    },
}

/// How a result is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As text or as JSON.
    pub form: Form,
    /// With names or numbers.
    pub numbers: Numbers,
}

/// As text or as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both: indented.
    PrettyJson,
}

/// What stands for types and features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// Their names.
    #[default]
    Names,
    /// Their numbers.
    Raw,
}

impl Options {
    pub(crate) fn json(&mut self) {
        if self.form == Form::Text {
            self.form = Form::Json;
        }
    }

    /// Also without the option for JSON, which the program demands besides.
    pub(crate) fn pretty(&mut self) {
        self.form = Form::PrettyJson;
    }
}

impl Output {
    /// What is printed; it ends with the end of a line unless it is empty.
    #[must_use]
    pub fn print(&self, options: Options) -> String {
        match options.form {
            Form::Text => text::text(self, options.numbers),
            Form::Json => format!("{}\n", json::compact(self, options.numbers)),
            Form::PrettyJson => format!("{}\n", json::pretty(self, options.numbers)),
        }
    }
}
