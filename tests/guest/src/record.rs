//! The lines by which the guest reports its tests.
//!
//! The console carries other lines too. A record is what follows the log's time stamp, and none of
//! the other lines begins like one.

use core::fmt;

/// One line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// So many tests follow.
    Plan(usize),
    /// There is a test of this name. Said instead of running it.
    Listed(&'a str),
    /// The test begins.
    Begun(&'a str),
    /// It has passed.
    Passed(&'a str),
    /// It has failed, for this reason.
    Failed(&'a str, &'a str),
    /// It does not apply to this machine, for this reason.
    Ignored(&'a str, &'a str),
    /// Every test has been run or listed.
    End(Totals),
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Ignored.
    pub ignored: usize,
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(count) => write!(f, "tests: {count}"),
            Self::Listed(name) => write!(f, "test {name}"),
            Self::Begun(name) => write!(f, "test {name} ..."),
            Self::Passed(name) => write!(f, "test {name} ... ok"),
            Self::Failed(name, reason) => write!(f, "test {name} ... FAILED: {reason}"),
            Self::Ignored(name, reason) => write!(f, "test {name} ... ignored: {reason}"),
            Self::End(Totals {
                passed,
                failed,
                ignored,
            }) => {
                write!(
                    f,
                    "end of run: {passed} passed, {failed} failed, {ignored} ignored"
                )
            }
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a line of the console; `None` if it is none of the report's.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let line = without_time(line);
        if let Some(count) = line.strip_prefix("tests: ") {
            return count.parse().ok().map(Self::Plan);
        }
        if let Some(totals) = line.strip_prefix("end of run: ") {
            return Totals::parse(totals).map(Self::End);
        }
        let test = line.strip_prefix("test ")?;
        let Some((name, outcome)) = test.split_once(" ...") else {
            return is_name(test).then_some(Self::Listed(test));
        };
        if !is_name(name) {
            return None;
        }
        match outcome
            .strip_prefix(' ')
            .map(|outcome| (outcome, outcome.split_once(": ")))
        {
            None if outcome.is_empty() => Some(Self::Begun(name)),
            Some(("ok", _)) => Some(Self::Passed(name)),
            Some((_, Some(("FAILED", reason)))) => Some(Self::Failed(name, reason)),
            Some((_, Some(("ignored", reason)))) => Some(Self::Ignored(name, reason)),
            _ => None,
        }
    }
}

impl Totals {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(", ");
        let mut count = |word: &str| parts.next()?.strip_suffix(word)?.parse().ok();
        let totals = Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            ignored: count(" ignored")?,
        };
        parts.next().is_none().then_some(totals)
    }
}

/// The line without the log's `[    0.123456] `.
#[must_use]
pub fn without_time(line: &str) -> &str {
    let stamped = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    match stamped {
        Some((time, rest))
            if time
                .bytes()
                .all(|b| b.is_ascii_digit() || b" .".contains(&b)) =>
        {
            rest
        }
        _ => line,
    }
}

/// Whether this could be the path of a function.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;

    use super::*;

    #[test]
    fn what_the_guest_writes_the_host_reads() {
        for record in [
            Record::Plan(23),
            Record::Listed("blk::read"),
            Record::Begun("blk::read"),
            Record::Passed("blk::read"),
            Record::Failed("blk::read", "sector 7: not ... the pattern"),
            Record::Ignored("blk::read", "no disk"),
            Record::End(Totals {
                passed: 20,
                failed: 1,
                ignored: 2,
            }),
        ] {
            assert_eq!(Record::parse(&format!("{record}")), Some(record));
            assert_eq!(
                Record::parse(&format!("[    1.234567] {record}")),
                Some(record)
            );
        }
    }

    #[test]
    fn other_lines_are_no_records() {
        for line in [
            "",
            "tests: many",
            "testing",
            "test of the disk",
            "test blk::read ... perhaps",
            "test blk::read ... FAILED",
            "test blk::read ...ok",
            "end of run",
            "end of run: 1 passed, 2 failed",
            "end of run: 1 passed, 2 failed, 3 ignored, 4 lost",
            "warning: test blk::read ... ok",
            "[x] test blk::read ... ok",
        ] {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }
}
