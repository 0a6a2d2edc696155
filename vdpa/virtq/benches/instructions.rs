//! How many instructions our queues take, and those of others, counted by valgrind: noise does not
//! touch this figure, and what instructions cost does not show in it.

mod contest;
mod report;

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use contest::cases;
use report::Figure;

/// The argument by which the program is told that it runs under valgrind.
const COUNTED: &str = "--counted";

/// Rounds that are not counted, so that rings, caches and lazy set-up are past their beginning.
const WARM_UP: u64 = 300;
const ROUNDS: u64 = 1000;

fn main() -> io::Result<()> {
    if env::args().any(|argument| argument == COUNTED) {
        run_all();
        return Ok(());
    }
    // `cargo test` runs benchmarks without `--bench`, to see that they work.
    if !env::args().any(|argument| argument == "--bench") {
        run_all();
        return Ok(());
    }
    if let Err(error) = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
    {
        println!("instructions: skipped: needs valgrind ({error})");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let counts = count(directory.path())?;
    let figures: Vec<_> = cases()
        .iter()
        .zip(counts)
        .map(|(case, count)| Figure::new(case, ROUNDS, count as f64))
        .collect();
    report::print("instructions", &figures);
    Ok(())
}

fn run_all() {
    for mut case in cases() {
        case.run(WARM_UP);
        counted(&mut || case.run(ROUNDS));
    }
}

/// What valgrind counts: it writes a profile whenever this function ends.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted(run: &mut dyn FnMut()) {
    run();
}

/// Runs this program under valgrind; one count for each case.
fn count(directory: &Path) -> io::Result<Vec<u64>> {
    let profile = directory.join("profile");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args(["--toggle-collect=counted", "--dump-after=counted"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env::current_exe()?)
        .arg(COUNTED)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    (1..=cases().len())
        .map(|case| {
            let text = fs::read_to_string(profile.with_added_extension(case.to_string()))?;
            total(&text).ok_or_else(|| io::Error::other("a profile without a total"))
        })
        .collect()
}

/// The instructions in a profile of callgrind.
fn total(profile: &str) -> Option<u64> {
    let line = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))?;
    line.split_whitespace().next()?.parse().ok()
}
