//! Shows the result of a command, as its options say.

use alloc::format;
use alloc::string::String;

use crate::DeviceReport;

use super::fields::Fields;
use super::options::{Form, Numbers, Options};
use super::output::Output;
use super::{json, shape, text};

impl Output {
    /// What is printed; it ends with the end of a line unless it is empty.
    #[must_use]
    pub fn print(&self, options: Options) -> String {
        let document = || shape::document(self, options.numbers);
        let json = match options.form {
            Form::Text => return text::text(self, options.numbers),
            Form::Json => json::json(&document()),
            Form::PrettyJson => json::pretty(&document()),
        };
        format!("{json}\n")
    }
}

impl DeviceReport {
    /// The fields with those behind them that [`Output::Devices`] shows of each device.
    #[must_use]
    pub fn add_to(&self, fields: Fields) -> Fields {
        shape::add_device(fields, self, Numbers::Names)
    }
}
