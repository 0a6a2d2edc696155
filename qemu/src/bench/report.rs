//! What a boot of the bench kernel reported, row by row, and what is wrong with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use guest_bench::record::{Record, Round};
use guest_bench::row::Row;

use super::BenchError;
use super::machine::Purpose;
use super::one_processor::OneProcessor;
use crate::exit::guest_code;
use crate::guest::Guest;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::running::{Ended, RunError, Running};

/// How long the guest may be silent. A row reports when all its rounds are done.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often Ctrl-C is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(200);

/// Lines of the console that explain a failure.
const CONTEXT: usize = 12;

/// The rounds of every row of one boot.
#[derive(Debug, Default)]
pub(super) struct Report {
    rounds: BTreeMap<String, Vec<Round>>,
    faults: Vec<String>,
}

/// Boots `guest` and collects its report. `expected` are the rows that it must measure.
pub(super) fn collect(
    guest: &Guest,
    purpose: Purpose,
    expected: &[Row],
    interrupt: &Interrupt,
) -> Result<Report, BenchError> {
    let progress = Progress::spinner(match purpose {
        Purpose::Times => "measuring times",
        Purpose::Instructions => "counting instructions",
    });
    let one = match purpose {
        Purpose::Times => None,
        Purpose::Instructions => Some(OneProcessor::take().map_err(BenchError::Processor)?),
    };
    let mut running = guest.spawn().map_err(|error| failed(error, &[]))?;
    drop(one);
    let mut last_line = Instant::now();
    loop {
        match running.next_line(Instant::now() + GLANCE) {
            Ok(Some(line)) => {
                last_line = Instant::now();
                if let Some(Record::Round(name, _)) = Record::parse(&line) {
                    progress.detail(name);
                }
            }
            Ok(None) => break,
            Err(_) if interrupt.happened() => return Err(BenchError::Interrupted),
            Err(RunError::TimedOut) if last_line.elapsed() < PATIENCE => {}
            Err(error) => return Err(failed(error, running.console())),
        }
    }
    let ended = end(running)?;
    if interrupt.happened() {
        return Err(BenchError::Interrupted);
    }
    Ok(Report::of(expected, &ended.console, how_it_ended(&ended)))
}

fn end(running: Running) -> Result<Ended, BenchError> {
    let console = running.console().to_vec();
    running
        .finish(Instant::now() + PATIENCE)
        .map_err(|error| failed(error, &console))
}

fn failed(source: RunError, console: &[String]) -> BenchError {
    BenchError::Run {
        source,
        console: excerpt(console),
    }
}

/// The exit code, or why there is none, with what QEMU says.
fn how_it_ended(ended: &Ended) -> Result<u8, String> {
    guest_code(ended.status).map_err(|reason| format!("{reason}: {}", ended.complaints.trim()))
}

impl Report {
    /// Reads a whole console.
    fn of(expected: &[Row], console: &[String], end: Result<u8, String>) -> Self {
        let mut report = Self::default();
        let (mut planned, mut complete, mut failed) = (None, false, false);
        for record in console.iter().filter_map(|line| Record::parse(line)) {
            match record {
                Record::Plan(count) => planned = Some(count),
                Record::Round(name, round) => report.add(name, round),
                Record::Failed(name, reason) => {
                    failed = true;
                    report.faults.push(format!("{name}: {reason}"));
                    // Rounds of a row that failed in the end mean nothing.
                    report.rounds.insert(name.into(), Vec::new());
                }
                Record::End => complete = true,
            }
        }
        report.check_rows(expected, planned);
        if !complete {
            let last = excerpt(console);
            report.faults.push(format!("the report has no end{last}"));
        }
        match end {
            Ok(code) if code == u8::from(failed) => {}
            Ok(code) => report.faults.push(format!("the exit code is {code}")),
            Err(reason) => report.faults.push(reason),
        }
        report
    }

    fn add(&mut self, name: &str, round: Round) {
        if round.operations == 0 || round.nanoseconds == 0 {
            self.faults.push(format!("{name}: an empty round"));
        } else {
            self.rounds.entry(name.into()).or_default().push(round);
        }
    }

    fn check_rows(&mut self, expected: &[Row], planned: Option<usize>) {
        if planned != Some(expected.len()) {
            self.faults.push(format!(
                "{} rows were announced instead of {}",
                planned.unwrap_or(0),
                expected.len()
            ));
        }
        for row in expected {
            if !self.rounds.contains_key(&row.name()) {
                self.faults.push(format!("{row} is missing"));
            }
        }
        let known: Vec<String> = expected.iter().map(Row::name).collect();
        let unknown = self.rounds.keys().filter(|name| !known.contains(name));
        self.faults
            .extend(unknown.map(|name| format!("{name} was not asked for")));
    }

    /// The rounds of a row; none if it is not there.
    pub(super) fn rounds(&self, row: &Row) -> &[Round] {
        self.rounds.get(&row.name()).map_or(&[], Vec::as_slice)
    }

    /// What is wrong.
    pub(super) fn faults(&self) -> &[String] {
        &self.faults
    }
}

/// The last lines, as the end of a message.
fn excerpt(console: &[String]) -> String {
    let start = console.len().saturating_sub(CONTEXT);
    console[start..]
        .iter()
        .map(|line| format!("\n    | {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
        Booting from ROM..
        [    0.010000] bench: 2 rows
        [    0.011000] blk0 on virtio0: 1 GiB
        [    0.012000] bench iotlb/map/1: 10 operations, 100 ns, 260 ticks, 0 halts
        [    0.012000] bench iotlb/map/1: 20 operations, 220 ns, 500 ticks, 1 halts
        [    0.013000] bench iotlb/unmap/1: 30 operations, 50 ns, 20 ticks, 0 halts
        [    0.014000] end of bench";

    /// The two rows that the console above has.
    fn rows() -> Vec<Row> {
        let mut rows = Row::selected(&["map/1"]);
        rows.retain(|row| row.name().ends_with("map/1"));
        rows
    }

    fn judged(console: &str, end: Result<u8, String>) -> Report {
        report(&rows(), console, end)
    }

    fn report(expected: &[Row], console: &str, end: Result<u8, String>) -> Report {
        let lines: Vec<String> = console.lines().map(|line| line.trim().into()).collect();
        Report::of(expected, &lines, end)
    }

    #[test]
    fn complete_report_is_believed() {
        let report = judged(GOOD, Ok(0));
        assert_eq!(report.faults(), [""; 0]);
        let rows = rows();
        assert_eq!(report.rounds(&rows[0]).len(), 2);
        assert_eq!(report.rounds(&rows[0])[1].halts, 1);
        assert_eq!(report.rounds(&rows[1])[0].operations, 30);
    }

    #[test]
    fn missing_row_is_a_fault() {
        let report = report(&Row::selected(&["iotlb/map"]), GOOD, Ok(0));
        let faults = report.faults().join("; ");
        assert!(faults.contains("iotlb/map/1000 is missing"), "{faults}");
        assert!(
            faults.contains("2 rows were announced instead of 3"),
            "{faults}"
        );
    }

    #[test]
    fn failed_row_is_a_fault_and_its_rounds_do_not_count() {
        let console = GOOD.replace(
            "[    0.014000]",
            "bench iotlb/unmap/1 FAILED: no memory\n[    0.014000]",
        );
        let report = judged(&console, Ok(1));
        assert_eq!(report.faults(), ["iotlb/unmap/1: no memory"]);
        assert!(report.rounds(&rows()[1]).is_empty());
        assert!(!judged(&console, Ok(0)).faults().is_empty());
    }

    #[test]
    fn wrong_ends_are_faults() {
        let cut = GOOD.split("[    0.014000]").next().unwrap();
        assert!(judged(cut, Ok(0)).faults()[0].contains("no end"));
        for end in [Ok(1), Ok(101), Err("killed".into())] {
            assert_eq!(judged(GOOD, end).faults().len(), 1);
        }
    }

    #[test]
    fn rows_that_were_not_asked_for_and_empty_rounds_are_faults() {
        let other = GOOD.replace("iotlb/unmap/1:", "iotlb/zap/1:");
        let faults = judged(&other, Ok(0)).faults().join("; ");
        assert!(faults.contains("iotlb/zap/1 was not asked for"), "{faults}");
        assert!(faults.contains("iotlb/unmap/1 is missing"), "{faults}");
        let empty = GOOD.replace("30 operations", "0 operations");
        assert!(!judged(&empty, Ok(0)).faults().is_empty());
    }
}
