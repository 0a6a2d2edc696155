//! The log, on the console: the time since the kernel's start, and what happened.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::machine::console;
use crate::machine::time::clock;
use crate::pure::command_line::CommandLine;

struct ConsoleLog;

static LOG: ConsoleLog = ConsoleLog;

/// Sends the log to the console, down to the level that the key `log` of the command line names,
/// which is `info` without it.
pub(crate) fn init(line: &CommandLine) {
    log::set_max_level(level(line).unwrap_or(LevelFilter::Info));
    // It fails if there is a log already, which then is this one.
    let _: Result<(), log::SetLoggerError> = log::set_logger(&LOG);
    if let Some(name) = line.get("log")
        && level(line).is_none()
    {
        log::warn!("log={name}: not one of off, error, warn, info, debug, trace");
    }
}

fn level(line: &CommandLine) -> Option<LevelFilter> {
    line.get("log")?.parse().ok()
}

impl Log for ConsoleLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let label = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        let now = clock::now();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        console::write(format_args!(
            "[{seconds:5}.{micros:06}] {label}{}\n",
            record.args()
        ));
    }

    fn flush(&self) {}
}
