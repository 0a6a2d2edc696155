//! What came of the checks.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What came of all checks of a subject.
#[derive(Clone, Debug)]
pub struct Report {
    subject: String,
    checks: Vec<Check>,
}

/// What came of one check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What holds if it has passed.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// What can come of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not, for this reason.
    Failed(String),
    /// The device cannot be put to the check, for this reason.
    Skipped(&'static str),
}

impl Report {
    pub(super) fn new(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            checks: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, name: &'static str, outcome: Outcome) {
        self.checks.push(Check { name, outcome });
    }

    /// All checks, in the order in which they were made.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether no check has failed.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.checks
            .iter()
            .all(|check| !matches!(check.outcome, Outcome::Failed(_)))
    }

    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        let outcomes = self.checks.iter().map(|check| &check.outcome);
        outcomes.filter(|outcome| of(outcome)).count()
    }
}

/// A line for each check that has not passed, and one with the sums.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, outcome } in &self.checks {
            match outcome {
                Outcome::Passed => {}
                Outcome::Failed(reason) => writeln!(f, "FAILED  {name}: {reason}")?,
                Outcome::Skipped(reason) => writeln!(f, "skipped {name}: {reason}")?,
            }
        }
        let passed = self.count(|outcome| *outcome == Outcome::Passed);
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let subject = &self.subject;
        write!(
            f,
            "{subject}: {passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}
