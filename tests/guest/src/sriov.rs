//! Virtual functions of an emulated card: QEMU's NVMe controller, which nobody drives here.

use alloc::format;

use kernel::System;
use pci::{PciDevice, SrIov, SrIovError};
use vdpa::bus::BusDevice;

use crate::outcome::Outcome;
use crate::{ensure, ensure_eq};

/// How many the card can have.
const TOTAL: u16 = 4;
/// Registers of an NVMe controller (NVM Express Base 2.0, 3.1.3): the version, and the status.
const VERSION: u64 = 0x08;
const STATUS: u64 = 0x1c;
const VERSION_1_4: u32 = 0x0001_0400;
/// The status of a virtual function that has not been given any queues: it does not work.
const FATAL: u32 = 1 << 1;

/// Makes virtual functions, reaches them, and ends them.
pub async fn run(system: &System) -> Outcome {
    let bus = system.pci();
    let devices = bus.devices();
    let mut cards = devices.iter().filter_map(|device| SrIov::of(bus, device));
    let card = cards.next().ok_or("no card has virtual functions")?;
    let physical = devices
        .iter()
        .find(|device| SrIov::of(bus, device).is_some())
        .ok_or("no card has virtual functions")?;
    ensure_eq!(card.total(), TOTAL);
    ensure_eq!(
        card.enable(TOTAL + 1).await.err(),
        Some(SrIovError::BadCount { total: TOTAL })
    );
    for count in [TOTAL, 1, 3] {
        let functions = card.enable(count).await?;
        ensure_eq!(functions.len(), usize::from(count));
        ensure_eq!(fact(physical), Some(format!("{count} of {TOTAL} VFs")));
        for function in &functions {
            ensure_eq!(function.identity().vendor, physical.identity().vendor);
            ensure_eq!(function.identity().class, physical.identity().class);
            ensure!(
                function.config().is_present(),
                "{function:?} does not answer"
            );
            let above = function.node().parent().map(|node| node.path());
            ensure_eq!(above, Some(physical.node().path()));
            let registers = function.claim()?.map(0)?;
            ensure_eq!(registers.read32(STATUS), FATAL);
        }
        card.disable().await?;
        ensure!(card.functions().is_empty(), "some are left");
        ensure_eq!(bus.devices().len(), devices.len());
        for function in &functions {
            ensure!(!function.config().is_present(), "{function:?} answers");
        }
    }
    // The physical function has not suffered.
    let registers = physical.claim()?.map(0)?;
    ensure_eq!(registers.read32(VERSION), VERSION_1_4);
    Ok(())
}

fn fact(device: &PciDevice) -> Option<alloc::string::String> {
    let report = device.node().report()?;
    let mut facts = report.facts.into_iter();
    facts.find(|(name, _)| *name == "SR-IOV").map(|fact| fact.1)
}
