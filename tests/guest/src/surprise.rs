//! Cards that lose their power while they are at work, and others that come in their place. The
//! host puts a disk and a network card behind ports of their own, and new ones as often as they
//! have gone.

use core::time::Duration;

use alloc::boxed::Box;

use embassy_futures::join::{join, join_array};
use guest_tests::disk::{HOST_SEED, SECTOR_BYTES, WRITTEN, first_difference};
use kernel::System;
use pci::{ConfigSpace, capabilities};
use vdpa::bus::BusDevice;
use virtio_blk::{BlkError, Disk};
use virtio_net::NetDevice;

use crate::bench::patiently;
use crate::outcome::Outcome;
use crate::{ensure, ensure_eq};

/// How often cards go and come.
const ROUNDS: usize = 3;
/// Tasks that load the disk.
const READERS: usize = 16;
/// Between one look and the next.
const PAUSE: Duration = Duration::from_millis(1);

/// The capability of PCI Express, and in it the control of the slot.
const PCI_EXPRESS: u8 = 0x10;
const SLOT_CONTROL: u16 = 0x18;
/// No power, and the indicator says so: then QEMU takes the card out.
const POWER_OFF: u16 = 1 << 10 | 3 << 8;

/// Takes the power from the cards, although they are in use.
pub async fn run(system: &System) -> Outcome {
    let (disks, nets) = (system.disks(), system.nets());
    let mut disk = patiently(system, disks.next()).await?;
    for round in 0..ROUNDS {
        let mut net = patiently(system, nets.next()).await?;
        let loss = async {
            system.platform().sleep(Duration::from_millis(5)).await;
            take_power(system);
        };
        let readers = join_array([(); READERS].map(|()| Box::pin(read_on(&disk))));
        let (ends, ()) = patiently(system, join(readers, loss)).await?;
        for end in ends {
            ensure_eq!(end, BlkError::Gone);
        }
        patiently(system, end_of(system, &mut net)).await?;
        patiently(system, emptiness(system)).await?;
        ensure!(disk.is_gone(), "the disk is still there");
        let late = disk.read(0, disk.buffer(SECTOR_BYTES)?).await.map(|_| ());
        ensure_eq!(late, Err(BlkError::Gone));
        // What is left of the old ones must not stand in the way of the new ones.
        kernel::log::info!("cards are gone, round {round}");
        let new = patiently(system, disks.next()).await?;
        for sector in 0..32 {
            let buffer = new.read(sector, new.buffer(SECTOR_BYTES)?).await?;
            ensure_eq!(first_difference(&buffer, sector, HOST_SEED), None);
        }
        disk = new;
    }
    Ok(())
}

/// Reads until the disk ends it, and says how it did.
async fn read_on(disk: &Disk) -> BlkError {
    let mut sector = 0;
    loop {
        let read = match disk.buffer(8 * SECTOR_BYTES) {
            Ok(buffer) => disk.read(sector, buffer).await,
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            return error;
        }
        sector = (sector + 8) % WRITTEN.start;
    }
}

/// Waits until the interface has let its device go.
async fn end_of(system: &System, net: &mut NetDevice) {
    while !net.is_gone() {
        net.wait().await;
        // It has nothing to wait for as soon as it is silent.
        system.platform().sleep(PAUSE).await;
    }
}

/// Waits until no device is left on the vDPA bus.
async fn emptiness(system: &System) {
    while !system.vdpa().devices().is_empty() {
        system.platform().sleep(PAUSE).await;
    }
}

/// Switches off every slot with a card in it.
fn take_power(system: &System) {
    let devices = system.pci().devices();
    let ports = devices
        .iter()
        .filter(|device| !device.node().children().is_empty());
    for port in ports {
        if let Some(control) = slot_control(port.config()) {
            let before = port.config().read16(control);
            // SAFETY: a slot without power holds nothing that touches memory.
            unsafe { port.config().write16(control, before | POWER_OFF) };
        }
    }
}

fn slot_control(port: &ConfigSpace) -> Option<u16> {
    let list = capabilities(port).ok()?;
    let entry = list.iter().find(|entry| entry.id == PCI_EXPRESS)?;
    Some(entry.offset + SLOT_CONTROL)
}
