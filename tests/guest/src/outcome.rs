//! How a test ends, and the assertions that end it without ending the run.

use alloc::string::{String, ToString};
use core::fmt::Display;

/// What a test returns.
pub type Outcome = Result<(), Failure>;

/// Why a test did not pass.
pub enum Failure {
    /// What it asserts does not hold.
    Failed(String),
    /// It does not apply to this machine.
    Ignored(String),
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Ends the test with a failure unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::outcome::Failure::Failed(alloc::format!($($message)+)));
        }
    };
}

/// Ends the test with a failure unless both are equal.
#[macro_export]
macro_rules! ensure_eq {
    ($found:expr, $expected:expr) => {
        let (found, expected) = (&$found, &$expected);
        $crate::ensure!(
            found == expected,
            "{} is {found:?} instead of {expected:?}",
            stringify!($found)
        );
    };
}
