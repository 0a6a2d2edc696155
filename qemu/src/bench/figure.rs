//! The arithmetic: from rounds to figures.

use guest_bench::record::Round;
use serde::Serialize;

/// Operations per second over several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    /// Of the slowest round.
    pub(super) min: f64,
    /// Of the round in the middle.
    pub(super) median: f64,
    /// Of the fastest round.
    pub(super) max: f64,
}

impl Rate {
    /// The rate of these rounds; `None` if there are none.
    pub(super) fn of(rounds: &[Round]) -> Option<Self> {
        let mut rates: Vec<f64> = rounds
            .iter()
            .map(|round| round.operations as f64 * 1e9 / round.nanoseconds as f64)
            .collect();
        rates.sort_unstable_by(f64::total_cmp);
        Some(Self {
            min: *rates.first()?,
            median: rates[rates.len() / 2],
            max: *rates.last()?,
        })
    }

    /// How long one operation takes in the round in the middle.
    pub(super) fn nanoseconds(&self) -> f64 {
        1e9 / self.median
    }
}

/// Guest instructions of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Instructions {
    /// So many.
    Counted(f64),
    /// The processor halted meanwhile, and the clock jumped.
    Idled,
    /// They were not counted for this row.
    Unknown,
}

impl Instructions {
    /// What these rounds say, which were measured with a clock that counts instructions.
    pub(super) fn of(rounds: &[Round]) -> Self {
        if rounds.is_empty() {
            return Self::Unknown;
        }
        if rounds.iter().any(|round| round.halts > 0) {
            return Self::Idled;
        }
        let sum = |part: fn(&Round) -> u64| rounds.iter().map(part).sum::<u64>() as f64;
        Self::Counted(sum(|round| round.ticks) / sum(|round| round.operations))
    }

    /// The number, if there is one.
    pub(super) fn counted(self) -> Option<f64> {
        match self {
            Self::Counted(number) => Some(number),
            Self::Idled | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(operations: u64, nanoseconds: u64, ticks: u64, halts: u64) -> Round {
        Round {
            operations,
            nanoseconds,
            ticks,
            halts,
        }
    }

    #[test]
    fn rates_are_sorted_and_the_middle_one_is_the_median() {
        let rounds = [
            round(1, 1_000, 0, 0),
            round(8, 2_000, 0, 0),
            round(2, 1_000, 0, 0),
        ];
        let rate = Rate::of(&rounds).unwrap();
        assert_eq!((rate.min, rate.median, rate.max), (1e6, 2e6, 4e6));
        assert_eq!(rate.nanoseconds(), 500.0);
        assert_eq!(Rate::of(&[]), None);
    }

    #[test]
    fn instructions_are_ticks_per_operation() {
        let rounds = [round(10, 1, 1_000, 0), round(30, 1, 2_000, 0)];
        assert_eq!(Instructions::of(&rounds), Instructions::Counted(75.0));
        assert_eq!(Instructions::of(&[]), Instructions::Unknown);
    }

    #[test]
    fn a_round_with_a_halt_counts_no_instructions() {
        let rounds = [round(10, 1, 1_000, 0), round(10, 1, 1_000, 1)];
        assert_eq!(Instructions::of(&rounds), Instructions::Idled);
        assert_eq!(Instructions::of(&rounds).counted(), None);
    }
}
