//! What the outer machine's console says of the inner machine.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use qemu::exit::guest_code;

use super::{END, INNER};
use crate::run::Run;
use crate::transcript::End;

/// The lines of the inner machine's console.
pub fn inner_console(console: &[String]) -> Vec<String> {
    let lines = console.iter().filter_map(|line| line.strip_prefix(INNER));
    lines.map(Into::into).collect()
}

/// How the inner machine ended, when the outer one has.
pub fn end_of_inner(outer: &Run) -> End {
    let status = outer
        .console
        .iter()
        .find_map(|line| line.strip_prefix(END)?.parse::<i32>().ok());
    match status {
        // A shell's exit status is the second byte of what waiting for a process gives.
        Some(status) => match guest_code(ExitStatus::from_raw(status << 8)) {
            Ok(code) => End::Code(code),
            Err(error) => End::NoCode(error.to_string()),
        },
        None if outer.end == End::TimedOut => End::TimedOut,
        None => End::NoCode("the outer machine ended before it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str], end: End) -> Run {
        Run {
            console: lines.iter().map(ToString::to_string).collect(),
            end,
        }
    }

    #[test]
    fn lines_of_the_inner_console_lose_what_marks_them() {
        let outer = run(&["host: x", "inner: a b", "inner: ", "c"], End::TimedOut);
        assert_eq!(inner_console(&outer.console), ["a b", ""]);
    }

    #[test]
    fn the_end_of_the_inner_machine_is_its_own() {
        let off = || End::NoCode("off".into());
        let ended = |status: &str| run(&["host: the inner machine ended with", status], off());
        let line = |status: &str| format!("{END}{status}");
        for (status, end) in [("33", End::Code(0)), ("35", End::Code(1))] {
            assert_eq!(end_of_inner(&ended(&line(status))), end);
        }
        for status in ["1", "0", "x", ""] {
            let end = end_of_inner(&ended(&line(status)));
            assert!(matches!(end, End::NoCode(_)), "{status:?}: {end:?}");
        }
        assert_eq!(end_of_inner(&run(&[], End::TimedOut)), End::TimedOut);
    }
}
