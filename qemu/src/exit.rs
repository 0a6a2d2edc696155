//! What the end of a QEMU process says about the guest.
//!
//! The guest writes `0x10 + code` to the `isa-debug-exit` device, and QEMU then exits with
//! `(value << 1) | 1`: 33 is the guest's 0. The offset keeps guest codes apart from QEMU's own
//! status 1, and a status of 0 means that QEMU ended without the guest saying how.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use thiserror::Error;

/// I/O port of the `isa-debug-exit` device.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;

/// What the guest adds to its exit code before it writes the port.
const CODE_OFFSET: u8 = 0x10;

/// An end of QEMU in which the guest gave no exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoExitCode {
    /// QEMU refused its command line or failed.
    #[error("QEMU failed (status {0}), see its message above")]
    Qemu(i32),
    /// The machine was switched off or reset. A triple fault resets it.
    #[error(
        "the guest switched off or reset the machine without an exit code: a triple fault does this"
    )]
    Reset,
    /// A signal ended QEMU.
    #[error("QEMU was killed by signal {0}")]
    Signal(i32),
}

/// The guest's exit code.
///
/// # Errors
///
/// A [`NoExitCode`] when QEMU ended for another reason.
pub fn guest_code(status: ExitStatus) -> Result<u8, NoExitCode> {
    if let Some(signal) = status.signal() {
        return Err(NoExitCode::Signal(signal));
    }
    let status = status.code().unwrap_or_default();
    match u8::try_from(status) {
        Ok(0) => Err(NoExitCode::Reset),
        Ok(odd) if odd % 2 == 1 && odd >> 1 >= CODE_OFFSET => Ok((odd >> 1) - CODE_OFFSET),
        _ => Err(NoExitCode::Qemu(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn codes_written_by_the_guest_come_back() {
        for code in 0..=0x6f_u8 {
            let value = i32::from(code + 0x10);
            assert_eq!(guest_code(exited((value << 1) | 1)), Ok(code));
        }
        assert_eq!(guest_code(exited(33)), Ok(0));
    }

    #[test]
    fn other_ends_are_no_guest_codes() {
        assert_eq!(guest_code(exited(0)), Err(NoExitCode::Reset));
        for status in [1, 2, 31, 34, 124, 254] {
            assert_eq!(
                guest_code(exited(status)),
                Err(NoExitCode::Qemu(status)),
                "{status}"
            );
        }
        assert_eq!(
            guest_code(ExitStatus::from_raw(9)),
            Err(NoExitCode::Signal(9))
        );
    }
}
