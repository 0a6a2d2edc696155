//! Simulated devices that come and go.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

use embassy_futures::join::join;
use vdpa::device::VdpaDevice;
use vdpa_sim::{Flavour, SimConfig};
use virtio_blk::{BlkError, Disk};

use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::parents::{ClientSide, flavour, ram_disk, sim_blk, sim_net};
use crate::{ensure_eq, guest_tests};

guest_tests![
    deleted_under_a_client,
    deleted_under_the_kernels_driver,
    hundreds_come_and_go_without_a_trace,
];

/// So many at once. Each is compared with all others, which takes half a minute without optimization.
const MANY: usize = if cfg!(debug_assertions) { 128 } else { 512 };

/// How often they come and go until nothing more is in use afterwards than before.
const ROUNDS: usize = 5;

/// Small queues, so that hundreds of devices with their drivers fit into the memory of the machine.
fn small() -> SimConfig {
    SimConfig {
        queue_size: 8,
        ..SimConfig::default()
    }
}

async fn hundreds_come_and_go_without_a_trace(bench: &Bench) -> Outcome {
    // The first time makes places for their tasks, which stay; with others at work it may be one
    // more the next time. What leaks is more every time.
    let mut used = Vec::new();
    for _ in 0..ROUNDS {
        come_and_go(bench).await?;
        let now = bench.system.memory().used;
        if used.last() == Some(&now) {
            return Ok(());
        }
        used.push(now);
    }
    Err(Failure::Failed(format!(
        "bytes in use, round by round: {used:?}"
    )))
}

async fn come_and_go(bench: &Bench) -> Outcome {
    let platform = bench.system.platform();
    let present = bench.system.vdpa().devices().len();
    let mut devices = Vec::new();
    for number in 0..MANY {
        let ops = if number % 2 == 0 {
            sim_blk(&ram_disk()?, small(), platform)?
        } else {
            sim_net(small(), platform)?.1
        };
        // A driver for each would take more memory than the machine has.
        let device = bench.register_unused(ops).await?;
        devices.push(device);
    }
    ensure_eq!(bench.system.vdpa().devices().len(), present + MANY);
    for device in devices {
        bench.unregister(&device).await?;
    }
    ensure_eq!(bench.system.vdpa().devices().len(), present);
    Ok(())
}

async fn deleted_under_the_kernels_driver(bench: &Bench) -> Outcome {
    for how in [Flavour::Incremental, Flavour::Whole] {
        let ops = sim_blk(&ram_disk()?, flavour(how), bench.system.platform())?;
        let device = bench.register(ops).await?;
        let disk = bench.new_disk(&device).await?;
        ends_with_the_device(bench, &disk, &device).await?;
    }
    Ok(())
}

async fn deleted_under_a_client(bench: &Bench) -> Outcome {
    for how in [Flavour::Incremental, Flavour::Whole] {
        let ops = sim_blk(&ram_disk()?, flavour(how), bench.system.platform())?;
        let device = bench.register_unused(ops).await?;
        let client = ClientSide::start(bench, bench.open(&device).await?).await?;
        let disk = client.disk()?;
        ends_with_the_device(bench, &disk, &device).await?;
        client.end().await;
    }
    Ok(())
}

/// Deletes the device of a disk that is written meanwhile.
async fn ends_with_the_device(bench: &Bench, disk: &Disk, device: &Arc<VdpaDevice>) -> Outcome {
    let done = Cell::new(0);
    let traffic = async {
        loop {
            let write = match disk.buffer(4096) {
                Ok(buffer) => disk.write(done.get() % 64 * 8, buffer).await,
                Err(error) => Err(error),
            };
            if let Err(error) = write {
                return error;
            }
            done.set(done.get() + 1);
        }
    };
    let deletion = async {
        while done.get() < 50 {
            bench.sleep(Duration::from_millis(1)).await;
        }
        bench.unregister(device).await
    };
    let (error, deleted) = bench.patiently(join(traffic, deletion)).await?;
    deleted?;
    ensure_eq!(error, BlkError::Gone);
    Ok(())
}
