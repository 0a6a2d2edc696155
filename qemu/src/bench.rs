//! `cargo run -- bench`: boots the bench kernel, collects what it counts, and makes a table of it.
//!
//! The kernel is booted twice. The first time it runs as fast as it can, which gives the times. The
//! second time QEMU's clock is the number of executed instructions, which gives their number
//! exactly: the processor counts those that it spends waiting for a device, and they are
//! subtracted. What a Linux guest needs for the same stands beside it; that is a record, and is not
//! measured here.

mod figure;
mod machine;
mod one_processor;
mod options;
mod peer;
mod report;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use crate::build::{self, BuildError};
use crate::interrupt::Interrupt;
use crate::prepare::{self, PrepareError};
use crate::running::RunError;

pub use self::options::Options;

use self::machine::Purpose;
use self::options::JsonTarget;
use self::report::Report;
use self::summary::Summary;

/// The package of the kernel.
const PACKAGE: &str = "guest-bench";

/// Why there are no figures, or not all of them.
#[derive(Debug, Error)]
pub enum BenchError {
    /// No row has all the words in its name.
    #[error("no row has {0:?} in its name; the rows are:\n{1}")]
    NoRow(Vec<String>, String),
    /// QEMU or the compiler's target is missing.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The kernel does not build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The machine cannot be kept on one processor of the host.
    #[error("QEMU cannot be kept on one processor: {0}")]
    Processor(io::Error),
    /// The machine did not run to its end.
    #[error("{source}{console}")]
    Run {
        /// Why.
        source: RunError,
        /// The last lines of its console, each on a line of its own.
        console: String,
    },
    /// What the machine reported is not what was asked for.
    #[error("the figures are not complete:\n  {}", .0.join("\n  "))]
    Incomplete(Vec<String>),
    /// The figures cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Measures, and prints the figures.
///
/// # Errors
///
/// A [`BenchError`]; what was measured in spite of a [`BenchError::Incomplete`] has been printed.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<(), BenchError> {
    let rows = options.rows()?;
    prepare::emulator::ensure()?;
    let kernel = match &options.kernel {
        Some(kernel) => kernel.clone(),
        None => {
            prepare::target::ensure()?;
            build::kernel(PACKAGE, build::Profile::Release, &[])?
        }
    };
    let timed = measure(options, Purpose::Times, &kernel, interrupt)?;
    let counted = measure(options, Purpose::Instructions, &kernel, interrupt)?;
    let summary = Summary::new(options, &rows, &timed, &counted);
    print(options, &summary)?;
    let faults = [timed.faults(), counted.faults()].concat();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(BenchError::Incomplete(faults))
    }
}

/// One boot of the kernel.
fn measure(
    options: &Options,
    purpose: Purpose,
    kernel: &Path,
    interrupt: &Interrupt,
) -> Result<Report, BenchError> {
    let expected = options.rows()?;
    let guest = machine::guest(options, purpose, kernel);
    report::collect(&guest, purpose, &expected, interrupt)
}

fn print(options: &Options, summary: &Summary) -> Result<(), BenchError> {
    match &options.json {
        Some(JsonTarget::Output) => println!("{}", summary.json()),
        Some(JsonTarget::File(path)) => {
            println!("{}", table::Table(summary));
            let text = summary.json() + "\n";
            let failed = |source| BenchError::Write {
                path: path.clone(),
                source,
            };
            fs::write(path, text).map_err(failed)?;
        }
        None => println!("{}", table::Table(summary)),
    }
    Ok(())
}
