//! What an application ends with, and how the host sees it.

use core::fmt::Display;

/// The outcome of an application as a number: 0 for success, up to [`ExitCode::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// It went well.
    pub const SUCCESS: Self = Self(0);
    /// It did not.
    pub const FAILURE: Self = Self(1);
    /// The kernel or the application panicked, or the processor raised an exception.
    pub const PANIC: Self = Self(101);
    /// The largest code.
    pub const MAX: Self = Self(0x6f);

    /// The code `code`, or [`ExitCode::MAX`] if it is larger.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        if code < Self::MAX.0 {
            Self(code)
        } else {
            Self::MAX
        }
    }

    /// What is written to QEMU's `isa-debug-exit`. QEMU then ends with `value * 2 + 1`, which for
    /// code 0 is 33: never a status that QEMU ends with by itself.
    #[must_use]
    pub(crate) const fn debug_exit_value(self) -> u8 {
        const OFFSET: u8 = 0x10;
        OFFSET + self.0
    }
}

/// What an application's `main` may return.
pub trait Termination {
    /// The exit code that stands for it. An error is logged.
    fn exit_code(self) -> ExitCode;
}

impl Termination for () {
    fn exit_code(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

impl Termination for ExitCode {
    fn exit_code(self) -> ExitCode {
        self
    }
}

impl<T: Termination, E: Display> Termination for Result<T, E> {
    fn exit_code(self) -> ExitCode {
        match self {
            Ok(value) => value.exit_code(),
            Err(error) => {
                log::error!("main: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_status_of_success_is_33() {
        assert_eq!(u16::from(ExitCode::SUCCESS.debug_exit_value()) * 2 + 1, 33);
    }

    #[test]
    fn large_codes_are_capped_so_that_the_host_status_fits_a_byte() {
        let status = u16::from(ExitCode::new(255).debug_exit_value()) * 2 + 1;
        assert_eq!(status, 255);
        assert_eq!(ExitCode::new(111), ExitCode::MAX);
        assert_eq!(ExitCode::new(110).debug_exit_value(), 0x10 + 110);
    }

    #[test]
    fn an_error_ends_with_a_failure() {
        assert_eq!(Err::<(), _>("broken").exit_code(), ExitCode::FAILURE);
        assert_eq!(
            Ok::<_, &str>(ExitCode::new(7)).exit_code(),
            ExitCode::new(7)
        );
        assert_eq!(().exit_code(), ExitCode::SUCCESS);
    }
}
