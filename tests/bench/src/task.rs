//! A disk in the memory of a task.

#[path = "../../../vdpa/vduse/examples/ram_disk/disk.rs"]
mod disk;

use alloc::boxed::Box;
use alloc::sync::Arc;

use embassy_futures::select::select;
use embassy_futures::yield_now;
use kernel::System;
use vdpa::VdpaOps;
use vdpa_vduse::{Options, serve};
use virtq::Event;

use self::disk::RamDisk;
use crate::Failure;
use crate::simulated::DISK_LEN;

/// What the disk is called.
const NAME: &str = "bench";

/// The task, until it is told to end.
pub struct Running {
    stop: Arc<Event>,
}

/// A disk for the bus, and the task that serves it.
pub fn disk(system: &System) -> Result<(Box<dyn VdpaOps>, Running), Failure> {
    let control = system.vduse();
    let memory = alloc::vec![0; usize::try_from(DISK_LEN)?].into_boxed_slice();
    let mut medium = RamDisk::new(memory, 1);
    control.create(&medium.config(NAME), Options::default())?;
    let task = control.open(NAME)?;
    medium.set_up(&task)?;
    let ops = control.attach(NAME)?;
    let stop = Arc::<Event>::default();
    let stopped = Arc::clone(&stop);
    system.spawn("disk", async move {
        select(stopped.wait(), serve(&task, &mut medium)).await;
    });
    Ok((ops, Running { stop }))
}

impl Running {
    /// Ends the task, and the device with it.
    pub async fn end(self, system: &System) {
        self.stop.raise();
        while system.vduse().destroy(NAME).is_err() {
            yield_now().await;
        }
    }
}
