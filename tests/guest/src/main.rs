//! The guest test kernel: runs every registered test inside the unikernel and reports each by name.
//!
//! The kernel's command line says what to do: nothing for all tests, `list` to name them, and
//! `fault=NAME` to do one forbidden thing that must end the machine. `vectors=N` says how many MSI-X
//! vectors the devices have, if not one for each queue, and `pci=none` that no device can be found.

#![no_std]
#![no_main]

extern crate alloc;

mod bench;
mod blk;
mod conformance;
mod fault;
mod heap;
mod hostile;
mod interrupts;
mod moving;
mod net;
mod net_control;
mod outcome;
mod parents;
mod pci;
mod registry;
mod removal;
mod simulators;
mod time;
mod vhost;

use guest_tests::record::{Record, Totals};
use kernel::{ExitCode, System};

use crate::bench::Bench;
use crate::outcome::Failure;
use crate::registry::Test;

kernel::entry!(main);

async fn main(system: System) -> ExitCode {
    let arguments = system.command_line();
    if let Some(name) = arguments.get("fault") {
        return fault::commit(name);
    }
    let tests = registry::sorted();
    report(Record::Plan(tests.len()));
    if arguments.has("list") {
        for test in &tests {
            report(Record::Listed(test.name()));
        }
        report(Record::End(Totals::default()));
        return ExitCode::SUCCESS;
    }
    let bench = Bench::new(system).await;
    let mut totals = Totals::default();
    for test in &tests {
        run(test, &bench, &mut totals).await;
    }
    report(Record::End(totals));
    if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(test: &Test, bench: &Bench, totals: &mut Totals) {
    let name = test.name();
    report(Record::Begun(name));
    match test.run(bench).await {
        Ok(()) => {
            totals.passed += 1;
            report(Record::Passed(name));
        }
        Err(Failure::Failed(reason)) => {
            totals.failed += 1;
            report(Record::Failed(name, &reason));
        }
        Err(Failure::Ignored(reason)) => {
            totals.ignored += 1;
            report(Record::Ignored(name, &reason));
        }
    }
}

fn report(record: Record<'_>) {
    log::info!("{record}");
}
