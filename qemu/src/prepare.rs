//! Makes sure of what a build and a boot need: the compiler's bare-metal target and QEMU.
//!
//! What can be installed without a question is installed, with a line that says so; for the rest
//! the exact command is printed.

pub mod emulator;
pub mod package;
pub mod target;

use std::fmt;
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::progress::Progress;

/// Why something needed is still missing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrepareError {
    /// Only the user can install it.
    #[error("{what} is missing. Install it with:\n\n    {command}\n")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The command that installs it on this platform.
        command: String,
    },
    /// The installation failed.
    #[error("{command} failed:\n{output}")]
    Failed {
        /// What was run.
        command: String,
        /// The end of what it said.
        output: String,
    },
}

/// A command that installs something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    words: Vec<&'static str>,
}

impl Step {
    fn new(words: &[&'static str]) -> Self {
        Self {
            words: words.to_vec(),
        }
    }

    /// Runs it behind a spinner that says what it is.
    fn run(&self) -> Result<(), PrepareError> {
        let progress = Progress::spinner(format_args!("running {self}"));
        let failed = |output: String| PrepareError::Failed {
            command: self.to_string(),
            output,
        };
        let (program, arguments) = self
            .words
            .split_first()
            .ok_or_else(|| failed(String::new()))?;
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        drop(progress);
        if output.status.success() {
            eprintln!("done: {self}");
            return Ok(());
        }
        Err(failed(tail(&output.stdout) + &tail(&output.stderr)))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// The last lines of a command's output.
fn tail(output: &[u8]) -> String {
    const LINES: usize = 15;
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(LINES);
    lines[start..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_step_says_what_was_run_and_what_it_said() {
        let step = Step::new(&["sh", "-c", "echo no such package >&2; exit 3"]);
        let Err(PrepareError::Failed { command, output }) = step.run() else {
            panic!("the step failed");
        };
        assert_eq!(command, "sh -c echo no such package >&2; exit 3");
        assert_eq!(output, "    no such package\n");
        assert!(Step::new(&["/no/such/program"]).run().is_err());
        assert_eq!(Step::new(&["true"]).run(), Ok(()));
    }
}
