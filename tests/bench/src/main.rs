//! The bench kernel: measures the data path, the IOTLB and the management of devices inside the
//! unikernel.
//!
//! The kernel's command line says how: `rounds=N` and `length=MS` are the number of rounds of each
//! row and about how long one is, `rows=WORD,...` selects the rows whose names contain every word,
//! and with `idle=count` the processor counts instructions while it waits, and does not halt. What
//! the rows are is in [`guest_bench::row`]. On the machine there must be a disk and two network
//! cards that reach each other, if rows are wanted that need them.

#![no_std]
#![no_main]

extern crate alloc;

mod disk;
mod iotlb;
mod machine;
mod management;
mod net;
mod simulated;
mod stopwatch;
mod task;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::error::Error;
use core::time::Duration;

use guest_bench::record::Record;
use guest_bench::row::Row;
use kernel::{CommandLine, ExitCode, System};

use crate::machine::Machine;
use crate::stopwatch::{Plan, Work};

/// Why a row could not be measured.
type Failure = Box<dyn Error>;

kernel::entry!(main);

async fn main(system: System) -> ExitCode {
    match measure_all(system).await {
        Ok(code) => code,
        Err(error) => {
            kernel::log::error!("the devices cannot be set up: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures every wanted row, also after one that failed.
async fn measure_all(system: System) -> Result<ExitCode, Failure> {
    let plan = plan(system.command_line());
    let rows = rows(system.command_line());
    if system.command_line().get("idle") == Some("count") {
        system.count_idle();
    }
    let machine = Machine::new(system).await?;
    report(Record::Plan(rows.len()));
    let mut code = ExitCode::SUCCESS;
    for row in rows {
        if let Err(error) = measure(row, &plan, &machine).await {
            report(Record::Failed(&row.name(), &error.to_string()));
            code = ExitCode::FAILURE;
        }
    }
    report(Record::End);
    Ok(code)
}

fn plan(arguments: &CommandLine) -> Plan {
    let number = |key| arguments.get(key).and_then(|text| text.parse().ok());
    Plan {
        rounds: number("rounds").unwrap_or(5),
        length: Duration::from_millis(number("length").unwrap_or(100)),
    }
}

fn rows(arguments: &CommandLine) -> Vec<Row> {
    let words = arguments.get("rows").unwrap_or_default();
    let words: Vec<&str> = words.split(',').collect();
    Row::selected(&words)
}

/// Measures one row and reports its rounds.
async fn measure(row: Row, plan: &Plan, machine: &Machine) -> Result<(), Failure> {
    let system = machine.system();
    match row {
        Row::Disk {
            path,
            access,
            depth,
        } => {
            let lease = machine.disk(path).await?;
            let work = disk::Requests::new(system, &lease.subject, access, depth)?;
            let result = rounds(row, plan, system, work).await;
            machine.give_back(lease).await;
            result
        }
        Row::Net { path, len, depth } => {
            let lease = machine.cards(path).await?;
            let work = net::Frames::new(system, Rc::clone(&lease.subject), len, depth)?;
            let result = rounds(row, plan, system, work).await;
            machine.give_back(lease).await;
            result
        }
        Row::Iotlb { operation, entries } => {
            let work = iotlb::Tables::new(system, operation, entries)?;
            rounds(row, plan, system, work).await
        }
        Row::Device(class) => {
            let work = management::Pairs::new(system, class);
            rounds(row, plan, system, work).await
        }
    }
}

async fn rounds(
    row: Row,
    plan: &Plan,
    system: &System,
    mut work: impl Work,
) -> Result<(), Failure> {
    for round in plan.measure(system, &mut work).await? {
        report(Record::Round(&row.name(), round));
    }
    Ok(())
}

fn report(record: Record<'_>) {
    kernel::log::info!("{record}");
}
