//! What a person sees while something takes long: a spinner or a bar on a terminal, one line where
//! standard error is not a terminal.

use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A step of work in progress. Dropping it unfinished removes it from the terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A step whose length is not known.
    pub fn spinner(what: impl Display) -> Self {
        let bar = ProgressBar::new_spinner();
        Self::show(bar, &what, "{spinner} {prefix} ({elapsed}) {wide_msg}")
    }

    /// A step of `bytes` bytes.
    pub fn bytes(what: impl Display, bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        Self::show(
            bar,
            &what,
            "{spinner} {prefix} [{bar:30}] {binary_bytes}/{binary_total_bytes}",
        )
    }

    /// Says what the step is at now.
    pub fn detail(&self, what: impl Display) {
        self.bar.set_message(what.to_string());
    }

    /// Counts `bytes` more.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn show(bar: ProgressBar, what: &impl Display, template: &str) -> Self {
        if stderr().is_terminal() {
            // The templates are constants; a wrong one falls back to the default style.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_string());
            bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            eprintln!("{what}");
        }
        Self { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
