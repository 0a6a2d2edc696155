//! Judges a run of the guest test kernel by its console and its exit.
//!
//! A test has passed only if its own record says so *and* the run came to its end: the last record
//! is there, its totals are right, and the exit code agrees. Whatever is missing, doubled or
//! unexpected is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use guest_tests::record::{Record, Totals};

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With an exit code of the guest.
    Code(u8),
    /// Without one, for this reason.
    NoCode(String),
    /// It had to be stopped at the deadline.
    TimedOut,
}

/// What is known of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed, and the run with it.
    Passed,
    /// It does not apply to this machine, for this reason.
    Ignored(String),
    /// It failed, or nothing can be said for it, for this reason.
    Failed(String),
}

/// A run that has been judged.
#[derive(Clone, Debug)]
pub struct Judgement {
    verdicts: BTreeMap<String, Verdict>,
    /// What is wrong with the run as a whole.
    faults: Vec<String>,
}

/// The lines of the console that a failure without a reason of its own shows.
const CONTEXT: usize = 12;

impl Judgement {
    /// Judges a run that should have had the tests `expected`.
    pub fn of(expected: &[String], console: &[String], end: &End) -> Self {
        let mut reading = Reading::default();
        for (place, line) in console.iter().enumerate() {
            if let Some(record) = Record::parse(line) {
                reading.take(record, place);
            }
        }
        reading.conclude(expected, console, end)
    }

    /// The verdict on the test `name`.
    pub fn verdict(&self, name: &str) -> Verdict {
        let verdict = self.verdicts.get(name).cloned();
        match (verdict, self.run()) {
            (None, _) => Verdict::Failed("it is not in the report".into()),
            (Some(Verdict::Passed), Err(_)) => {
                Verdict::Failed("it passed, but the run did not: see whole_run".into())
            }
            (Some(verdict), _) => verdict,
        }
    }

    /// Notes something that is wrong with the run besides its report.
    pub fn add_fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Whether the run as a whole can be relied on.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn run(&self) -> Result<(), String> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(self.faults.join("; "))
        }
    }
}

/// A report as it is read.
#[derive(Default)]
struct Reading {
    planned: Option<usize>,
    /// The test that has begun and has no outcome yet, and the line where it began.
    open: Option<(String, usize)>,
    verdicts: BTreeMap<String, Verdict>,
    end: Option<Totals>,
    faults: Vec<String>,
}

impl Reading {
    fn take(&mut self, record: Record<'_>, place: usize) {
        if self.end.is_some() {
            self.faults
                .push(format!("after the end of the run came {record}"));
        }
        match record {
            Record::Plan(count) => {
                if self.planned.replace(count).is_some() {
                    self.faults.push("the run began twice".into());
                }
            }
            Record::Listed(name) => self.faults.push(format!("{name} was listed, not run")),
            Record::Begun(name) => {
                if let Some((open, _)) = self.open.replace((name.into(), place)) {
                    self.close(open, Verdict::Failed("it has no outcome".into()));
                }
            }
            Record::Passed(name) => self.outcome(name, Verdict::Passed),
            Record::Failed(name, reason) => self.outcome(name, Verdict::Failed(reason.into())),
            Record::Ignored(name, reason) => self.outcome(name, Verdict::Ignored(reason.into())),
            Record::End(totals) => self.end = Some(totals),
        }
    }

    fn outcome(&mut self, name: &str, verdict: Verdict) {
        match self.open.take() {
            Some((open, _)) if open == name => {}
            Some((open, _)) => {
                self.faults.push(format!("{name} ended while {open} ran"));
                self.close(open, Verdict::Failed("it has no outcome".into()));
            }
            None => self.faults.push(format!("{name} ended, but had not begun")),
        }
        self.close(name.into(), verdict);
    }

    /// Enters a verdict; a second one for the same test is a fault of both.
    fn close(&mut self, name: String, verdict: Verdict) {
        if self.verdicts.contains_key(&name) {
            self.faults.push(format!("{name} was run twice"));
            self.verdicts
                .insert(name, Verdict::Failed("it was run twice".into()));
        } else {
            self.verdicts.insert(name, verdict);
        }
    }

    fn conclude(mut self, expected: &[String], console: &[String], end: &End) -> Judgement {
        if let Some((name, place)) = self.open.take() {
            let reason = format!("the machine ended during it{}", excerpt(&console[place..]));
            self.close(name, Verdict::Failed(reason));
        }
        self.check_names(expected);
        self.check_end(console, end);
        Judgement {
            verdicts: self.verdicts,
            faults: self.faults,
        }
    }

    fn check_names(&mut self, expected: &[String]) {
        match self.planned {
            Some(count) if count == expected.len() => {}
            Some(count) => {
                self.faults.push(format!(
                    "{count} tests were announced instead of {}",
                    expected.len()
                ));
            }
            None => self.faults.push("no tests were announced".into()),
        }
        let expected: BTreeSet<&String> = expected.iter().collect();
        let unexpected: Vec<String> = self
            .verdicts
            .keys()
            .filter(|name| !expected.contains(name))
            .cloned()
            .collect();
        for name in unexpected {
            self.faults.push(format!("{name} was not expected"));
        }
        for name in expected {
            if !self.verdicts.contains_key(name) {
                self.verdicts
                    .insert(name.clone(), Verdict::Failed("it was not run".into()));
                self.faults.push(format!("{name} was not run"));
            }
        }
    }

    fn check_end(&mut self, console: &[String], end: &End) {
        let counted = self.count();
        match self.end {
            Some(totals) if totals == counted => {}
            Some(totals) => self
                .faults
                .push(format!("the totals {totals:?} are not {counted:?}")),
            None => {
                let last = excerpt(console);
                self.faults
                    .push(format!("the record of the run's end is missing{last}"));
            }
        }
        let expected_code = u8::from(counted.failed > 0);
        match end {
            End::Code(code) if *code == expected_code => {}
            End::Code(code) => {
                self.faults.push(format!(
                    "the exit code is {code} instead of {expected_code}"
                ));
            }
            End::NoCode(reason) => self.faults.push(reason.clone()),
            End::TimedOut => self.faults.push("it was not done at the deadline".into()),
        }
    }

    fn count(&self) -> Totals {
        let count = |wanted: fn(&Verdict) -> bool| {
            self.verdicts
                .values()
                .filter(|verdict| wanted(verdict))
                .count()
        };
        Totals {
            passed: count(|verdict| matches!(verdict, Verdict::Passed)),
            failed: count(|verdict| matches!(verdict, Verdict::Failed(_))),
            ignored: count(|verdict| matches!(verdict, Verdict::Ignored(_))),
        }
    }
}

/// The names in the output of a boot that lists its tests.
///
/// # Errors
///
/// What is wrong with the list.
pub fn names(console: &[String], end: &End) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let (mut planned, mut complete) = (None, false);
    for record in console.iter().filter_map(|line| Record::parse(line)) {
        match record {
            Record::Plan(count) => planned = Some(count),
            Record::Listed(name) => names.push(name.to_string()),
            Record::End(_) => complete = true,
            other => return Err(format!("there is no place for {other} in a list")),
        }
    }
    let distinct: BTreeSet<&String> = names.iter().collect();
    if !complete || *end != End::Code(0) {
        return Err(format!(
            "the list of tests is not complete ({end:?}){}",
            excerpt(console)
        ));
    }
    if distinct.len() != names.len() {
        return Err("two tests have the same name".into());
    }
    if planned != Some(names.len()) || names.is_empty() {
        return Err(format!(
            "{planned:?} tests were announced and {} listed",
            names.len()
        ));
    }
    Ok(names)
}

/// The last of these lines, as the end of a message.
pub fn excerpt(console: &[String]) -> String {
    let start = console.len().saturating_sub(CONTEXT);
    console[start..]
        .iter()
        .fold(String::new(), |mut text, line| {
            // Writing to a string does not fail.
            let _ = write!(text, "\n    | {line}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| line.trim().to_string()).collect()
    }

    fn judge(expected: &[&str], console: &str, end: &End) -> Judgement {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        Judgement::of(&expected, &lines(console), end)
    }

    fn failed(judgement: &Judgement, name: &str) -> String {
        match judgement.verdict(name) {
            Verdict::Failed(reason) => reason,
            other => panic!("{name} is {other:?}"),
        }
    }

    const GOOD: &str = "
        Booting from ROM..
        [    0.010000] tests: 2
        [    0.011000] test a::one ...
        [    0.012000] 0000:00:02.0 something else
        [    0.013000] test a::one ... ok
        [    0.014000] test a::two ...
        [    0.015000] test a::two ... ignored: no such device
        [    0.016000] end of run: 1 passed, 0 failed, 1 ignored";

    #[test]
    fn complete_run_is_believed() {
        let judgement = judge(&["a::one", "a::two"], GOOD, &End::Code(0));
        assert_eq!(judgement.run(), Ok(()));
        assert_eq!(judgement.verdict("a::one"), Verdict::Passed);
        assert_eq!(
            judgement.verdict("a::two"),
            Verdict::Ignored("no such device".into())
        );
    }

    #[test]
    fn failure_is_reported_with_its_reason_and_leaves_the_run_sound() {
        let console = GOOD
            .replace("one ... ok", "one ... FAILED: 1 is not 2")
            .replace("1 passed, 0 failed", "0 passed, 1 failed");
        let judgement = judge(&["a::one", "a::two"], &console, &End::Code(1));
        assert_eq!(judgement.run(), Ok(()));
        assert_eq!(failed(&judgement, "a::one"), "1 is not 2");
    }

    #[test]
    fn right_records_with_a_wrong_exit_are_not_believed() {
        for end in [
            End::Code(1),
            End::Code(101),
            End::NoCode("killed".into()),
            End::TimedOut,
        ] {
            let judgement = judge(&["a::one", "a::two"], GOOD, &end);
            assert!(judgement.run().is_err(), "{end:?}");
            assert!(
                failed(&judgement, "a::one").contains("the run did not"),
                "{end:?}"
            );
        }
    }

    #[test]
    fn right_exit_without_the_last_record_is_not_believed() {
        let cut = GOOD.split("[    0.016000]").next().unwrap();
        let judgement = judge(&["a::one", "a::two"], cut, &End::Code(0));
        assert!(
            judgement
                .run()
                .unwrap_err()
                .contains("run's end is missing")
        );
        assert!(failed(&judgement, "a::one").contains("the run did not"));
    }

    #[test]
    fn silence_is_no_success() {
        let judgement = judge(&["a::one"], "", &End::Code(0));
        assert!(judgement.run().is_err());
        assert_eq!(failed(&judgement, "a::one"), "it was not run");
        assert!(judge(&[], "", &End::Code(0)).run().is_err());
    }

    #[test]
    fn panic_fails_the_test_with_its_message_and_all_that_follow() {
        let console = "
            tests: 3
            test a::one ...
            test a::one ... ok
            test a::three ...
            panicked at tests/guest/src/a.rs:3:5: the disk is round
            backtrace: 0x1000";
        let judgement = judge(&["a::one", "a::three", "a::two"], console, &End::Code(101));
        let reason = failed(&judgement, "a::three");
        assert!(reason.contains("the disk is round"), "{reason}");
        assert_eq!(failed(&judgement, "a::two"), "it was not run");
        assert!(failed(&judgement, "a::one").contains("the run did not"));
    }

    #[test]
    fn missing_test_is_a_failure() {
        let judgement = judge(&["a::one", "a::three", "a::two"], GOOD, &End::Code(0));
        assert_eq!(failed(&judgement, "a::three"), "it was not run");
        let faults = judgement.run().unwrap_err();
        assert!(
            faults.contains("2 tests were announced instead of 3"),
            "{faults}"
        );
    }

    #[test]
    fn unexpected_test_is_a_failure() {
        let judgement = judge(&["a::one"], GOOD, &End::Code(0));
        assert!(
            judgement
                .run()
                .unwrap_err()
                .contains("a::two was not expected")
        );
    }

    #[test]
    fn test_that_is_run_twice_is_a_failure() {
        let twice = GOOD.replace(
            "[    0.014000]",
            "test a::one ...
             test a::one ... ok
             [    0.014000]",
        );
        let judgement = judge(&["a::one", "a::two"], &twice, &End::Code(0));
        assert_eq!(failed(&judgement, "a::one"), "it was run twice");
        assert!(judgement.run().is_err());
    }

    #[test]
    fn outcomes_must_follow_their_beginnings() {
        let unbegun = "tests: 1\ntest a::one ... ok\nend of run: 1 passed, 0 failed, 0 ignored";
        assert!(judge(&["a::one"], unbegun, &End::Code(0)).run().is_err());
        let crossed = "tests: 2\ntest a::one ...\ntest a::two ... ok\n\
                       end of run: 1 passed, 1 failed, 0 ignored";
        let judgement = judge(&["a::one", "a::two"], crossed, &End::Code(1));
        assert_eq!(failed(&judgement, "a::one"), "it has no outcome");
    }

    #[test]
    fn wrong_totals_and_a_second_run_are_not_believed() {
        let wrong = GOOD.replace("1 passed", "2 passed");
        assert!(
            judge(&["a::one", "a::two"], &wrong, &End::Code(0))
                .run()
                .is_err()
        );
        let again = format!("{GOOD}\ntests: 2");
        assert!(
            judge(&["a::one", "a::two"], &again, &End::Code(0))
                .run()
                .is_err()
        );
    }

    const LIST: &str =
        "tests: 2\ntest a::one\ntest a::two\nend of run: 0 passed, 0 failed, 0 ignored";

    #[test]
    fn list_is_read() {
        assert_eq!(
            names(&lines(LIST), &End::Code(0)),
            Ok(vec!["a::one".into(), "a::two".into()])
        );
    }

    #[test]
    fn incomplete_list_is_refused() {
        for (list, end) in [
            (LIST.replace("end of run", "end"), End::Code(0)),
            (LIST.replace("tests: 2", "tests: 3"), End::Code(0)),
            (LIST.replace("a::two", "a::one"), End::Code(0)),
            (
                LIST.replace("test a::two", "test a::two ... ok"),
                End::Code(0),
            ),
            (LIST.to_string(), End::Code(1)),
            (LIST.to_string(), End::TimedOut),
            (
                "tests: 0\nend of run: 0 passed, 0 failed, 0 ignored".into(),
                End::Code(0),
            ),
        ] {
            assert!(names(&lines(&list), &end).is_err(), "{list} {end:?}");
        }
    }
}
