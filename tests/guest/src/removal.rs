//! Taking drivers from devices that are at work, and giving them back.

use alloc::boxed::Box;
use core::time::Duration;

use embassy_futures::join::{join, join_array};
use guest_tests::disk::{HOST_SEED, SECTOR_BYTES, WRITABLE, WRITTEN, first_difference};
use virtio_blk::{BlkError, Disk};

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::parents::NOBODY;
use crate::{ensure_eq, guest_tests};

guest_tests![
    broken_disk_ends_requests_and_comes_back,
    network_card_comes_back,
    unbinding_ends_requests_in_flight,
];

/// Tasks that load a disk.
const READERS: [u64; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

async fn unbinding_ends_requests_in_flight(bench: &Bench) -> Outcome {
    for _ in 0..5 {
        let disk = bench.disk(WRITABLE).await?;
        let device = bench.virtio_device(disk.name())?;
        let readers = load(&disk);
        let unbind = async {
            bench.sleep(Duration::from_millis(3)).await;
            bench.virtio().set_override(&device, Some(NOBODY)).await;
        };
        let (ends, ()) = bench.patiently(join(readers, unbind)).await?;
        for end in ends {
            ensure_eq!(end, BlkError::Gone);
        }
        ensure_eq!(bench.virtio().driver_of(&device), None);
        let late = disk.read(0, disk.buffer(SECTOR_BYTES)?).await.map(|_| ());
        ensure_eq!(late, Err(BlkError::Gone));
        bench.virtio().set_override(&device, None).await;
        reads_well(bench).await?;
    }
    Ok(())
}

async fn broken_disk_ends_requests_and_comes_back(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    let device = bench.virtio_device(disk.name())?;
    let readers = load(&disk);
    let breakage = async {
        bench.sleep(Duration::from_millis(3)).await;
        device.break_down();
    };
    let (ends, ()) = bench.patiently(join(readers, breakage)).await?;
    for end in ends {
        ensure_eq!(end, BlkError::Broken);
    }
    // Letting go resets the device, which is what mends it.
    bench.virtio().set_override(&device, Some(NOBODY)).await;
    bench.virtio().set_override(&device, None).await;
    reads_well(bench).await
}

async fn network_card_comes_back(bench: &Bench) -> Outcome {
    let name = bench.net_name().await?;
    let device = bench.virtio_device(&name)?;
    bench.virtio().set_override(&device, Some(NOBODY)).await;
    ensure_eq!(bench.virtio().driver_of(&device), None);
    bench.drop_net();
    bench.virtio().set_override(&device, None).await;
    bench
        .with_net(async |net| crate::net::reaches_the_gateway(bench, net).await)
        .await
}

/// Readers that go on until the disk ends them, and what it ended them with.
async fn load(disk: &Disk) -> [BlkError; READERS.len()] {
    let read_on = async |number: u64| {
        let mut sector = number * 64;
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
    };
    join_array(READERS.map(|number| Box::pin(read_on(number)))).await
}

/// Reads a while from the disk that is there now.
async fn reads_well(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    for sector in 0..32 {
        let buffer = disk.read(sector, disk.buffer(SECTOR_BYTES)?).await?;
        ensure_eq!(first_difference(&buffer, sector, HOST_SEED), None);
    }
    Ok(())
}
