//! The guest test kernel: runs every registered test inside the unikernel and reports each by name.
//!
//! The kernel's command line says what to do: nothing for all tests, `only=BEGINNING,..` for those
//! whose names begin so, `skip=BEGINNING,..` for the others, `list` to name them, `fault=NAME` to do one forbidden thing that must end
//! the machine, and `cards=surprise`, `cards=sriov` or `cards=attacks` for what needs cards of its own.
//!
//! It also says what the machine is like: `vectors=N` MSI-X vectors of each device, if not one for
//! each queue; `page_per_vq=on`, if each queue has a page for its doorbell; `migration=on`, if the
//! devices have a live-migration block; `pci=none`, if there is no PCI and the devices are in
//! memory. `ifcvf=qemu` is the kernel's. And `restarts=SECONDS` is how long the tasks of disks end each
//! second.

#![no_std]
#![no_main]

extern crate alloc;

mod attacks;
mod bench;
mod blk;
mod conformance;
mod doorbells;
mod edu;
mod fault;
mod heap;
mod hostile;
mod interrupts;
mod moving;
mod net;
mod net_control;
mod outcome;
mod packet_filter;
mod parents;
mod pci;
mod registry;
mod removal;
mod simulators;
mod sriov;
mod surprise;
mod time;
mod vduse;
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
    if let Some(what) = arguments.get("cards") {
        return cards(&system, what).await;
    }
    let mut tests = registry::sorted();
    if let Some(parts) = arguments.get("only") {
        tests.retain(|test| parts.split(',').any(|part| test.name().starts_with(part)));
    }
    if let Some(parts) = arguments.get("skip") {
        tests.retain(|test| !parts.split(',').any(|part| test.name().starts_with(part)));
    }
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

/// Does what only some machines have the cards for.
async fn cards(system: &System, what: &str) -> ExitCode {
    let outcome = match what {
        "attacks" => attacks::run(system).await,
        "surprise" => surprise::run(system).await,
        "sriov" => sriov::run(system).await,
        _ => Err(Failure::from("nothing of this name can be done with cards")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(reason) | Failure::Ignored(reason)) => {
            kernel::log::error!("cards={what}: {reason}");
            ExitCode::FAILURE
        }
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
    kernel::log::info!("{record}");
}
