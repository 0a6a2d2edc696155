//! A disk whose tables say anything, with checksums that are right if the input likes.

use embassy_futures::block_on;
use hadris_part::raw::crc32;
use web::disk;
use web::partition::{Table, partitions};

use super::device::Device;
use super::input::{Input, patch};

const BLOCKS: usize = 160;
/// The place of the copy's entries.
const COPY: usize = BLOCKS - 34;

/// Reads the tables of one disk.
///
/// # Panics
/// If a partition is not on the disk, lies on another one, or too much is read.
pub fn partition_table(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let block = if flags & 1 == 0 { 512 } else { 4096 };
    let mut image = vec![0; BLOCKS * block];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    if flags & 2 == 0 {
        // A protective MBR, and both copies of a table with two partitions.
        image[450] = 0xee;
        image[454] = 1;
        image[458] = 0xff;
        for (place, other, entries) in [(1, BLOCKS - 1, 2), (BLOCKS - 1, 1, COPY)] {
            header(&mut image, block, place, other, entries);
            for (slot, first, last) in [(0, 40, 59), (1, 60, 99)] {
                let at = entries * block + slot * 128;
                image[at..at + 16].fill(0xaf);
                image[at + 32] = first;
                image[at + 40] = last;
            }
        }
    }
    while !input.is_empty() {
        // The first blocks, the last ones, or any.
        let first = match input.byte() % 8 {
            0..4 => 0,
            4 => 1,
            5 => BLOCKS - 1,
            6 => COPY,
            _ => input.below(BLOCKS),
        };
        let at = first * block + input.below(2 * block);
        let length = usize::from(input.byte() % 32);
        patch(&mut image, at, input.bytes(length));
    }
    if flags & 4 == 0 {
        seal(&mut image, block, 1);
        seal(&mut image, block, BLOCKS - 1);
    }
    check(image, block);
}

fn header(image: &mut [u8], block: usize, place: usize, other: usize, entries: usize) {
    let header = &mut image[place * block..][..92];
    header[..8].copy_from_slice(b"EFI PART");
    for (at, value) in [
        (12, 92),
        (24, place),
        (32, other),
        (72, entries),
        (80, 128),
        (84, 128),
    ] {
        header[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
}

/// Puts the checksums of what stands there.
fn seal(image: &mut [u8], block: usize, place: usize) {
    let number = |image: &[u8], at: usize| {
        let at = place * block + at;
        u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes")) as usize
    };
    let (entries, length) = (
        number(image, 72).saturating_mul(block),
        number(image, 80).saturating_mul(number(image, 84)),
    );
    let size = number(image, 12);
    if let Some(entries) = image.get(entries..entries.saturating_add(length)) {
        let checksum = crc32(entries).to_le_bytes();
        patch(image, place * block + 88, &checksum);
    }
    patch(image, place * block + 16, &[0; 4]);
    if let Some(header) = image[place * block..][..block].get(..size) {
        let checksum = crc32(header).to_le_bytes();
        patch(image, place * block + 16, &checksum);
    }
}

fn check(image: Vec<u8>, block: usize) {
    let mut device = Device::new(image, block as u32);
    let table = block_on(partitions(&mut device));
    assert!(device.take_reads() < 1000, "a table is read without an end");
    if let Ok(Table { mut partitions, .. }) = table {
        partitions.sort_by_key(|partition| partition.first);
        let mut free = 1;
        for partition in partitions {
            assert!(
                partition.first >= free && partition.blocks > 0,
                "{partition:?}"
            );
            free = partition.first + partition.blocks;
            assert!(free <= BLOCKS as u64, "{partition:?}");
        }
    }
    let opened = block_on(disk::open(device, None)).opened;
    if let Ok(opened) = opened {
        assert!(opened.start + opened.length <= (BLOCKS * block) as u64);
    }
}
