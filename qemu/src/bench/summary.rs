//! All figures of a run, in the form that is printed and written as JSON.

use guest_bench::row::Row;
use serde::Serialize;

use super::figure::{Instructions, Rate};
use super::options::Options;
use super::peer::{self, Peer};
use super::report::Report;
use crate::accel::Accel;

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) conditions: Conditions,
    pub(super) rows: Vec<Line>,
}

/// What the figures were measured on and how.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    pub(super) accelerator: String,
    pub(super) machine: String,
    pub(super) memory: String,
    pub(super) rounds: u64,
    pub(super) round_milliseconds: u64,
    /// Where the figures of the peer come from.
    pub(super) peer: &'static str,
    pub(super) peer_details: &'static str,
}

/// The figures of one row. What is not known is `null`.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) per_second: Option<Rate>,
    pub(super) nanoseconds: Option<f64>,
    pub(super) instructions: Option<f64>,
    /// Whether instructions could not be counted because the processor had nothing to do at times.
    pub(super) idled: bool,
    pub(super) peer: Option<Comparison>,
}

/// The figures of the peer, and ours divided by them.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) per_second: Rate,
    pub(super) instructions: Option<f64>,
    /// Above 1 we are faster.
    pub(super) rate_ratio: Option<f64>,
    /// Below 1 we need less.
    pub(super) instructions_ratio: Option<f64>,
}

impl Summary {
    /// The figures of two boots.
    pub(super) fn new(options: &Options, rows: &[Row], timed: &Report, counted: &Report) -> Self {
        let effort = options.timing();
        let accel = options.accel.resolve();
        let lines = rows.iter().map(|row| Line::new(row, accel, timed, counted));
        Self {
            conditions: Conditions {
                accelerator: accel.to_string(),
                machine: options.machine.to_string(),
                memory: options.memory.to_string(),
                rounds: effort.rounds,
                round_milliseconds: effort.length,
                peer: peer::SOURCE,
                peer_details: peer::DETAILS,
            },
            rows: lines.collect(),
        }
    }

    /// As JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings have a form in JSON")
    }
}

impl Line {
    fn new(row: &Row, accel: Accel, timed: &Report, counted: &Report) -> Self {
        let rate = Rate::of(timed.rounds(row));
        let instructions = Instructions::of(counted.rounds(row));
        let compare = |peer| Comparison::new(peer, accel, rate, instructions);
        Self {
            name: row.name(),
            per_second: rate,
            nanoseconds: rate.map(|rate| rate.nanoseconds()),
            instructions: instructions.counted(),
            idled: instructions == Instructions::Idled,
            peer: peer::of(row).map(compare),
        }
    }
}

impl Comparison {
    /// The peer ran under the translator: the speed of another accelerator is not compared with it.
    fn new(peer: Peer, accel: Accel, rate: Option<Rate>, instructions: Instructions) -> Self {
        let comparable = rate.filter(|_| accel == Accel::Tcg);
        let counted = instructions.counted();
        Self {
            per_second: peer.rate,
            instructions: peer.instructions,
            rate_ratio: comparable.map(|rate| rate.median / peer.rate.median),
            instructions_ratio: counted.zip(peer.instructions).map(|(ours, its)| ours / its),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        min: 1e5,
        median: 2e5,
        max: 4e5,
    };

    const PEER: Peer = Peer {
        rate: Rate {
            min: 1e4,
            median: 4e4,
            max: 5e4,
        },
        instructions: Some(10_000.0),
    };

    #[test]
    fn ratios_are_ours_divided_by_the_peers() {
        let compared =
            Comparison::new(PEER, Accel::Tcg, Some(RATE), Instructions::Counted(2_500.0));
        assert_eq!(compared.rate_ratio, Some(5.0));
        assert_eq!(compared.instructions_ratio, Some(0.25));
    }

    #[test]
    fn what_is_not_known_or_not_comparable_has_no_ratio() {
        let idled = Comparison::new(PEER, Accel::Tcg, None, Instructions::Idled);
        assert_eq!((idled.rate_ratio, idled.instructions_ratio), (None, None));
        let kvm = Comparison::new(PEER, Accel::Kvm, Some(RATE), Instructions::Counted(1_000.0));
        assert_eq!(kvm.rate_ratio, None);
        assert_eq!(kvm.instructions_ratio, Some(0.1));
    }
}
