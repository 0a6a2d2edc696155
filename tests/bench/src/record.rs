//! The lines by which the guest reports what it has measured.
//!
//! It reports each round as it was counted, and the host does the arithmetic. As in the
//! [report of the tests](guest_tests::record), a record is what follows the log's time stamp.

use core::fmt;

use guest_tests::record::without_time;

/// One line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// So many rows follow.
    Plan(usize),
    /// A round of the row of this name.
    Round(&'a str, Round),
    /// The row of this name could not be measured, for this reason.
    Failed(&'a str, &'a str),
    /// Everything has been said.
    End,
}

/// What was counted in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Operations that were done.
    pub operations: u64,
    /// How long they took, in nanoseconds.
    pub nanoseconds: u64,
    /// How far the time-stamp counter went meanwhile, without what the processor has counted while
    /// it waited. On a machine whose clock is its instruction counter these are instructions.
    pub ticks: u64,
    /// How often the processor had nothing to do and halted.
    pub halts: u64,
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(count) => write!(f, "bench: {count} rows"),
            Self::Round(
                name,
                Round {
                    operations,
                    nanoseconds,
                    ticks,
                    halts,
                },
            ) => write!(
                f,
                "bench {name}: {operations} operations, {nanoseconds} ns, {ticks} ticks, {halts} halts"
            ),
            Self::Failed(name, reason) => write!(f, "bench {name} FAILED: {reason}"),
            Self::End => f.write_str("end of bench"),
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a line of the console; `None` if it is none of the report's.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let line = without_time(line);
        if line == "end of bench" {
            return Some(Self::End);
        }
        if let Some(count) = line.strip_prefix("bench: ") {
            return count.strip_suffix(" rows")?.parse().ok().map(Self::Plan);
        }
        let (subject, said) = line.strip_prefix("bench ")?.split_once(": ")?;
        match subject.split_once(' ') {
            None => Round::parse(said).map(|round| Self::Round(subject, round)),
            Some((name, "FAILED")) => Some(Self::Failed(name, said)),
            Some(_) => None,
        }
    }
}

impl Round {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(", ");
        let mut count = |unit: &str| parts.next()?.strip_suffix(unit)?.parse().ok();
        let round = Self {
            operations: count(" operations")?,
            nanoseconds: count(" ns")?,
            ticks: count(" ticks")?,
            halts: count(" halts")?,
        };
        parts.next().is_none().then_some(round)
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    const ROUND: Round = Round {
        operations: 1000,
        nanoseconds: u64::MAX,
        ticks: 23,
        halts: 0,
    };

    #[test]
    fn what_the_guest_writes_the_host_reads() {
        for record in [
            Record::Plan(35),
            Record::Round("sim-blk/vhost/read/32", ROUND),
            Record::Failed("iotlb/map/1", "no memory: 3 of 4"),
            Record::End,
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
            "bench",
            "bench: rows",
            "bench: many rows",
            "bench a/b",
            "bench a/b: 1 operations, 2 ns, 3 ticks",
            "bench a/b: 1 operations, 2 ns, 3 ticks, 4 halts, 5 more",
            "bench a/b: -1 operations, 2 ns, 3 ticks, 4 halts",
            "bench a/b failed: so",
            "end of bench 2",
        ] {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }
}
