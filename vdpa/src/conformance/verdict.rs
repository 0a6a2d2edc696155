//! How a check says that something does not hold.

use alloc::format;
use alloc::string::String;
use core::fmt::{Debug, Display};

/// What a check has found out.
pub(super) type Verdict = Result<(), Stop>;

/// Why a check ends early.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    Failed(String),
    Skipped(&'static str),
}

/// What must have worked.
pub(super) trait OrFail<T> {
    /// Its value; otherwise the check fails with the error of `what`.
    fn or_fail(self, what: impl Display) -> Result<T, Stop>;
}

impl<T, E: Debug> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl Display) -> Result<T, Stop> {
        self.map_err(|error| Stop::Failed(format!("{what}: {error:?}")))
    }
}

/// Fails unless `condition` holds.
pub(super) fn ensure(condition: bool, what: impl Display) -> Verdict {
    if condition {
        Ok(())
    } else {
        Err(Stop::Failed(format!("{what}")))
    }
}

/// Fails unless the values are equal.
pub(super) fn equal<T: PartialEq + Debug>(what: impl Display, is: &T, expected: &T) -> Verdict {
    let differ = || Stop::Failed(format!("{what} is {is:?}, not {expected:?}"));
    if is == expected {
        Ok(())
    } else {
        Err(differ())
    }
}

/// Ends the check, because the device lacks what it needs.
pub(super) fn skip_unless(condition: bool, reason: &'static str) -> Verdict {
    if condition {
        Ok(())
    } else {
        Err(Stop::Skipped(reason))
    }
}

/// A table of checks: a name and an async function of the bench for each.
macro_rules! checks {
    ($($name:literal => $check:ident,)*) => {
        pub(super) const CHECKS: $crate::conformance::Checks =
            &[$(($name, |bench| ::alloc::boxed::Box::pin($check(bench)))),*];
    };
}
pub(super) use checks;
