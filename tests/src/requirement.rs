//! What becomes of a test whose requirements this machine cannot meet: skipped with the reason for
//! a developer without network or root, failed in CI, where nobody reads what was skipped.

use std::env;
use std::fmt::Display;

use thiserror::Error;

/// A test that cannot run where it has to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("cannot run, which is a failure in CI: {0}")]
pub struct CannotRun(String);

/// Judges a test that lacks something: the reason for which it is skipped.
///
/// # Errors
///
/// [`CannotRun`] in CI: the variable `CI` is set and is neither empty, `0` nor `false`.
pub fn skip(missing: impl Display) -> Result<String, CannotRun> {
    judge(env::var("CI").ok().as_deref(), &missing)
}

fn judge(ci: Option<&str>, missing: &dyn Display) -> Result<String, CannotRun> {
    match ci {
        None | Some("" | "0" | "false") => Ok(format!("skipped: {missing}")),
        Some(_) => Err(CannotRun(missing.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_failure_in_ci_alone() {
        for ci in [None, Some(""), Some("0"), Some("false")] {
            assert_eq!(judge(ci, &"no network"), Ok("skipped: no network".into()));
        }
        for ci in [Some("true"), Some("1"), Some("yes")] {
            assert_eq!(
                judge(ci, &"no network"),
                Err(CannotRun("no network".into()))
            );
        }
    }
}
