//! How work is measured: in rounds of about the same length, by the clock, the time-stamp counter
//! and the count of halts. What the processor has counted while it waited is no work.

use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use guest_bench::record::Round;
use kernel::System;

use crate::Failure;

/// Operations of the first, unmeasured attempt.
const FIRST: u64 = 64;

/// How often an attempt may turn out too short to tell how many operations a round has.
const ATTEMPTS: usize = 24;

/// Something that can be done many times.
pub trait Work {
    /// Does it `operations` times, or a few more, while the stopwatch runs, and says how often.
    async fn perform(
        &mut self,
        operations: u64,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<u64, Failure>;
}

/// How much is measured.
pub struct Plan {
    /// How many rounds.
    pub rounds: u64,
    /// About how long each of them is.
    pub length: Duration,
}

impl Plan {
    /// Measures `work`.
    pub async fn measure(
        &self,
        system: &System,
        work: &mut impl Work,
    ) -> Result<Vec<Round>, Failure> {
        let operations = self.operations(system, work).await?;
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            rounds.push(round(system, work, operations).await?);
        }
        Ok(rounds)
    }

    /// How many operations make a round of about the wanted length.
    async fn operations(&self, system: &System, work: &mut impl Work) -> Result<u64, Failure> {
        let wanted = u64::try_from(self.length.as_nanos())?;
        let mut operations = FIRST;
        for _ in 0..ATTEMPTS {
            let Round {
                operations: done,
                nanoseconds,
                ..
            } = round(system, work, operations).await?;
            if nanoseconds >= wanted / 4 {
                let fitting = u128::from(done) * u128::from(wanted) / u128::from(nanoseconds);
                return Ok(u64::try_from(fitting)?.max(1));
            }
            operations *= 4;
        }
        Err("it takes no time".into())
    }
}

async fn round(system: &System, work: &mut impl Work, operations: u64) -> Result<Round, Failure> {
    let mut stopwatch = Stopwatch {
        system,
        round: Round::default(),
    };
    let done = work.perform(operations, &mut stopwatch).await?;
    Ok(Round {
        operations: done,
        ..stopwatch.round
    })
}

/// Adds up what is counted while it runs.
pub struct Stopwatch<'a> {
    system: &'a System,
    round: Round,
}

/// The counters at one moment.
struct Moment {
    now: Duration,
    ticks: u64,
    halts: u64,
}

impl Stopwatch<'_> {
    /// Runs while `work` does.
    pub async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let before = self.moment();
        let result = work.await;
        let after = self.moment();
        let elapsed = after.now.saturating_sub(before.now).as_nanos();
        self.round.nanoseconds += u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.round.ticks += after.ticks.wrapping_sub(before.ticks);
        self.round.halts += after.halts - before.halts;
        result
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.system.platform().now(),
            ticks: ticks().wrapping_sub(self.system.idle_instructions()),
            halts: self.system.halts(),
        }
    }
}

/// The time-stamp counter.
fn ticks() -> u64 {
    // SAFETY: every processor with long mode has the counter.
    unsafe { _rdtsc() }
}
