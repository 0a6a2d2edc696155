//! One boot of a test kernel, from the start of QEMU to its end.

use std::path::Path;
use std::time::{Duration, Instant};

use qemu::exit::guest_code;
use qemu::guest::Guest;
use qemu::running::RunError;

use crate::transcript::{End, names};

/// How long a guest test kernel may take to list its tests on a busy host.
const LIST_PATIENCE: Duration = Duration::from_secs(180);

/// How the names of the guest's tests begin that work with devices of software alone. What the
/// machine is like makes no difference to them, and they take most of the time.
const SIMULATED: [&str; 5] = [
    "conformance::simulated",
    "simulators",
    "vduse",
    "vhost::hostile",
    "vhost::simulated",
];

/// What a machine did until its end.
#[derive(Debug)]
pub struct Run {
    /// What it printed, line by line.
    pub console: Vec<String>,
    /// How it ended.
    pub end: End,
}

/// Boots a guest and waits for its end, but not for longer than `patience`.
///
/// # Errors
///
/// [`RunError`], if QEMU cannot be started or its console not be read. That the guest does not end
/// in time, or ends badly, is no error but its [`End`].
pub fn boot(guest: &Guest, patience: Duration) -> Result<Run, RunError> {
    let mut running = guest.spawn()?;
    let deadline = Instant::now() + patience;
    loop {
        match running.next_line(deadline) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(RunError::TimedOut) => {
                let console = running.console().to_vec();
                return Ok(Run {
                    console,
                    end: End::TimedOut,
                });
            }
            Err(error) => return Err(error),
        }
    }
    let ended = running.finish(deadline)?;
    let end = match guest_code(ended.status) {
        Ok(code) => End::Code(code),
        Err(error) => End::NoCode(format!("{error} {}", ended.complaints.trim())),
    };
    Ok(Run {
        console: ended.console,
        end,
    })
}

/// Whether the guest's test of this name works with devices of the machine.
pub fn uses_the_machine(name: &str) -> bool {
    !SIMULATED.iter().any(|part| name.starts_with(part))
}

/// The word for the guest's command line that leaves out what does not work with devices of the
/// machine.
pub fn skip_simulated() -> String {
    format!("skip={}", SIMULATED.join(","))
}

/// The names of the tests in a guest test kernel, which lists them.
///
/// # Errors
///
/// It cannot be booted, or what it says is no list.
pub fn test_names(kernel: &Path) -> Result<Vec<String>, String> {
    let list = Guest {
        append: "list".into(),
        ..Guest::new(kernel)
    };
    let run = boot(&list, LIST_PATIENCE).map_err(|error| error.to_string())?;
    names(&run.console, &run.end)
}
