//! The virtio disk driver on QEMU's disks.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use embassy_futures::join::join_array;
use guest_tests::disk::{
    GUEST_SEED, HOST_SEED, READ_ONLY, SCRATCH, SECTOR_BYTES, SECTORS, WRITABLE, WRITTEN, fill,
    first_difference,
};
use virtio_blk::BlkError;

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::{ensure_eq, guest_tests};

guest_tests![
    abandoned_requests_do_no_harm,
    buffer_that_is_no_whole_sector_is_refused,
    capacity_and_identity,
    last_sector_is_there_and_the_next_is_not,
    many_requests_in_flight,
    odd_lengths_and_places,
    reads_what_the_host_wrote,
    read_only_disk_refuses_writes,
    read_only_disk_reads,
    single_sectors,
    writes_what_the_host_will_read,
];

/// Requests that are in flight together.
const TOGETHER: usize = 64;

async fn capacity_and_identity(bench: &Bench) -> Outcome {
    for (id, read_only) in [(WRITABLE, false), (READ_ONLY, true)] {
        let disk = bench.disk(id).await?;
        ensure_eq!(disk.capacity(), SECTORS);
        ensure_eq!(disk.block_size(), SECTOR_BYTES);
        ensure_eq!(disk.is_read_only(), read_only);
        ensure_eq!(disk.id().await?, id);
    }
    Ok(())
}

async fn reads_what_the_host_wrote(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    // All of the disk but what this run writes.
    for (first, end) in [
        (0, WRITTEN.start),
        (WRITTEN.end, SCRATCH.start),
        (SCRATCH.end, SECTORS),
    ] {
        let mut sector = first;
        while sector < end {
            let count = (end - sector).min(256);
            let mut bytes = vec![0; usize::try_from(count)? * SECTOR_BYTES];
            disk.read_into(sector, &mut bytes).await?;
            ensure_eq!(first_difference(&bytes, sector, HOST_SEED), None);
            sector += count;
        }
    }
    Ok(())
}

async fn writes_what_the_host_will_read(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    let mut pattern = vec![0; usize::try_from(WRITTEN.end - WRITTEN.start)? * SECTOR_BYTES];
    fill(&mut pattern, WRITTEN.start, GUEST_SEED);
    disk.write_from(WRITTEN.start, &pattern).await?;
    disk.flush().await?;
    let mut found = vec![0; pattern.len()];
    disk.read_into(WRITTEN.start, &mut found).await?;
    ensure_eq!(first_difference(&found, WRITTEN.start, GUEST_SEED), None);
    // The neighbours are untouched.
    for neighbour in [WRITTEN.start - 1, WRITTEN.end] {
        let mut sector = [0; SECTOR_BYTES];
        disk.read_into(neighbour, &mut sector).await?;
        ensure_eq!(first_difference(&sector, neighbour, HOST_SEED), None);
    }
    Ok(())
}

async fn single_sectors(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    for sector in (0..64).map(|step| SCRATCH.start + step * 3) {
        let mut buffer = disk.buffer(SECTOR_BYTES)?;
        fill(&mut buffer, sector, GUEST_SEED);
        disk.write(sector, buffer).await?;
        let buffer = disk.read(sector, disk.buffer(SECTOR_BYTES)?).await?;
        ensure_eq!(first_difference(&buffer, sector, GUEST_SEED), None);
    }
    Ok(())
}

async fn odd_lengths_and_places(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    for count in [1, 2, 3, 7, 8, 15, 16, 17, 63, 255, 256, 257, 1000] {
        let first = SCRATCH.start + 2 * count + 1;
        let mut bytes = vec![0; usize::try_from(count)? * SECTOR_BYTES];
        fill(&mut bytes, first, GUEST_SEED ^ count);
        disk.write_from(first, &bytes).await?;
        bytes.fill(0);
        disk.read_into(first, &mut bytes).await?;
        ensure_eq!(first_difference(&bytes, first, GUEST_SEED ^ count), None);
    }
    Ok(())
}

async fn many_requests_in_flight(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    // More rounds than a queue has descriptors, so that the ring wraps.
    for round in 0..20 {
        let seed = GUEST_SEED ^ round;
        let places: [u64; TOGETHER] = core::array::from_fn(|n| SCRATCH.start + 16 * n as u64);
        let write = async |first| {
            let mut buffer = disk.buffer(8 * SECTOR_BYTES)?;
            fill(&mut buffer, first, seed);
            disk.write(first, buffer).await
        };
        // Boxed: unoptimized, so many futures by value do not fit the stack.
        let written = join_array(places.map(|first| Box::pin(write(first))));
        for result in written.await {
            result?;
        }
        let read = async |first: u64| {
            disk.read(first, disk.buffer(8 * SECTOR_BYTES)?)
                .await
                .map(|buffer| (first, buffer))
        };
        let read = join_array(places.map(|first| Box::pin(read(first))));
        for result in read.await {
            let (first, buffer) = result?;
            ensure_eq!(first_difference(&buffer, first, seed), None);
        }
    }
    Ok(())
}

async fn abandoned_requests_do_no_harm(bench: &Bench) -> Outcome {
    use embassy_futures::poll_once;
    let disk = bench.disk(WRITABLE).await?;
    for round in 0..300 {
        let mut abandoned = Vec::new();
        for step in 0..8 {
            let sector = (round * 8 + step) % WRITTEN.start;
            let mut read = Box::pin(disk.read(sector, disk.buffer(SECTOR_BYTES)?));
            // Submitted, and in flight or done.
            let _ = poll_once(read.as_mut());
            abandoned.push(read);
        }
        drop(abandoned);
        let sector = round % WRITTEN.start;
        let buffer = disk.read(sector, disk.buffer(SECTOR_BYTES)?).await?;
        ensure_eq!(first_difference(&buffer, sector, HOST_SEED), None);
    }
    Ok(())
}

async fn read_only_disk_reads(bench: &Bench) -> Outcome {
    let disk = bench.disk(READ_ONLY).await?;
    let mut bytes = vec![0; 512 * SECTOR_BYTES];
    disk.read_into(100, &mut bytes).await?;
    ensure_eq!(first_difference(&bytes, 100, HOST_SEED), None);
    Ok(())
}

async fn read_only_disk_refuses_writes(bench: &Bench) -> Outcome {
    let disk = bench.disk(READ_ONLY).await?;
    let refused = disk.write_from(0, &[0x55; SECTOR_BYTES]).await;
    ensure_eq!(refused, Err(BlkError::ReadOnly));
    let refused = disk.write(0, disk.buffer(SECTOR_BYTES)?).await.map(|_| ());
    ensure_eq!(refused, Err(BlkError::ReadOnly));
    let buffer = disk.read(0, disk.buffer(SECTOR_BYTES)?).await?;
    ensure_eq!(first_difference(&buffer, 0, HOST_SEED), None);
    Ok(())
}

async fn last_sector_is_there_and_the_next_is_not(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    let last = SECTORS - 1;
    let buffer = disk.read(last, disk.buffer(SECTOR_BYTES)?).await?;
    ensure_eq!(first_difference(&buffer, last, HOST_SEED), None);
    for (sector, sectors) in [(SECTORS, 1), (last, 2), (u64::MAX, 1), (u64::MAX / 512, 1)] {
        let buffer = disk.buffer(sectors * SECTOR_BYTES)?;
        let refused = disk.read(sector, buffer).await.map(|_| ());
        ensure_eq!(refused, Err(BlkError::OutOfRange));
        let buffer = disk.buffer(sectors * SECTOR_BYTES)?;
        let refused = disk.write(sector, buffer).await.map(|_| ());
        ensure_eq!(refused, Err(BlkError::OutOfRange));
    }
    Ok(())
}

async fn buffer_that_is_no_whole_sector_is_refused(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    for length in [1, SECTOR_BYTES - 1, SECTOR_BYTES + 1] {
        let refused = disk.read(0, disk.buffer(length)?).await.map(|_| ());
        ensure_eq!(refused, Err(BlkError::Unaligned));
        let refused = disk.write(0, disk.buffer(length)?).await.map(|_| ());
        ensure_eq!(refused, Err(BlkError::Unaligned));
    }
    Ok(())
}
