//! Runs a machine on this terminal: its console is ours, Ctrl-C ends it, and the terminal is as
//! before afterwards.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios};
use thiserror::Error;

use crate::exit::{NoExitCode, guest_code};
use crate::guest::{Guest, QEMU};
use crate::interrupt::Interrupt;

/// Why a machine did not run to an exit code.
#[derive(Debug, Error)]
pub enum InteractiveError {
    /// QEMU could not be started or waited for.
    #[error("{QEMU} does not run: {0}")]
    Process(#[from] io::Error),
    /// It ended, but not by an exit code of the guest.
    #[error(transparent)]
    NoExitCode(#[from] NoExitCode),
}

/// Runs `guest` on this terminal until it ends or `interrupt` ends it, and returns its exit code.
///
/// # Errors
///
/// An [`InteractiveError`]; after an interrupt its kind says nothing.
pub fn run(guest: &Guest, interrupt: &Interrupt) -> Result<u8, InteractiveError> {
    let _terminal = Terminal::save();
    let status = interrupt.watch(guest.command().spawn()?)?;
    Ok(guest_code(status)?)
}

/// The terminal's settings, restored when dropped even if QEMU could not do it.
#[derive(Debug)]
struct Terminal {
    settings: Option<Termios>,
}

impl Terminal {
    fn save() -> Self {
        let stdin = io::stdin();
        let settings = stdin
            .is_terminal()
            .then(|| termios::tcgetattr(&stdin).ok())
            .flatten();
        Self { settings }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            // A terminal that has gone needs no restoring.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, settings);
        }
    }
}
