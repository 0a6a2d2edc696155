//! Disks with partitions.

use std::ops::Range;

use embassy_futures::block_on;
use hadris_part::gpt::types;
use hadris_part::{DiskLayout, Guid, PartitionSpec, Size};
use hadris_storage::{BlockSize, MemDevice};
use proptest::prelude::*;
use web::partition::{Partition, Table, partitions};
use web::volume::VolumeError;

use crate::device::Device;
use crate::visitor::visit;
use crate::volumes::{KINDS, files, volume};

/// A partition of type FAT16 and one that holds others.
pub const DATA: u8 = 0x06;
const EXTENDED: u8 = 0x05;

fn fat() -> Vec<u8> {
    let (kind, size) = KINDS[0];
    volume(kind, size)
}

/// A GPT with three partitions on a disk of 4 MiB in blocks of `block` bytes; the second one has
/// the volume.
pub fn gpt(block: u32) -> Device {
    let disk = vec![0; 4 << 20];
    let mut disk = MemDevice::new(disk, BlockSize::new(block).unwrap());
    let mut layout = DiskLayout::gpt(Guid::from_bytes([7; 16]));
    for size in [Size::MiB(1), Size::MiB(1), Size::Remaining] {
        layout = layout.partition(PartitionSpec::new(types::LINUX_FILESYSTEM, size));
    }
    let table = hadris_part::sync::create(&mut disk, &layout).unwrap();
    let start = table.partition(1).unwrap().start() * u64::from(block);
    let (start, fat) = (usize::try_from(start).unwrap(), fat());
    let mut disk = disk.into_inner();
    disk[start..start + fat.len()].copy_from_slice(&fat);
    Device::new(disk, block)
}

pub fn set_entry(image: &mut [u8], record: usize, slot: usize, kind: u8, start: u32, blocks: u32) {
    let entry = &mut image[record * 512 + 446 + slot * 16..][..16];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&blocks.to_le_bytes());
    image[record * 512 + 510..record * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
}

/// A disk of 4 MiB with the entries in its MBR, and the volume at the block `at`.
fn mbr(entries: &[(u8, u32, u32)], at: usize) -> Vec<u8> {
    let mut image = vec![0; 4 << 20];
    for (slot, (kind, start, blocks)) in entries.iter().enumerate() {
        set_entry(&mut image, 0, slot, *kind, *start, *blocks);
    }
    let fat = fat();
    image[at * 512..at * 512 + fat.len()].copy_from_slice(&fat);
    image
}

fn found(image: Vec<u8>) -> Vec<(usize, Range<u64>)> {
    let found = block_on(partitions(&mut Device::new(image, 512))).unwrap();
    let place = |partition: &Partition| {
        let end = partition.first + partition.blocks;
        (partition.number, partition.first..end)
    };
    found.partitions.iter().map(place).collect()
}

#[test]
fn the_volume_is_taken_from_the_first_partition_that_has_one() {
    let primary = mbr(&[(DATA, 64, 100), (DATA, 2048, 2048)], 2048);
    for (device, number) in [
        (gpt(512), 2),
        (gpt(4096), 2),
        (Device::new(primary, 512), 2),
    ] {
        assert_eq!(visit(&device, None).unwrap(), files());
        assert_eq!(visit(&device, Some(number)).unwrap(), files());
        assert_eq!(visit(&device, Some(1)), Err(VolumeError::NoFileSystem));
        assert_eq!(visit(&device, Some(9)), Err(VolumeError::NoPartition));
    }
    let whole = Device::new(fat(), 512);
    assert_eq!(visit(&whole, Some(1)), Err(VolumeError::NoPartition));
}

#[test]
fn the_other_copy_of_a_gpt_stands_in_for_one_that_is_damaged() {
    for block in [512, 4096] {
        let device = gpt(block);
        let (size, last) = (device.block(), device.image.borrow().len() - 1);
        // The signature, the size, the checksum, the place, the number of entries and their size,
        // and an entry.
        for at in [0, 12, 16, 24, 80, 84, 88, size + 32] {
            let flip = |at: usize| device.image.borrow_mut()[at] ^= 0x55;
            flip(size + at);
            assert_eq!(visit(&device, None).unwrap(), files(), "{block} {at}");
            // With the header at the end gone as well, nothing is left to go by.
            flip(last - size + 1);
            assert_eq!(
                visit(&device, None),
                Err(VolumeError::PartitionTable),
                "{block} {at}"
            );
            flip(size + at);
            assert_eq!(visit(&device, None).unwrap(), files(), "{block} {at}");
            flip(last - size + 1);
        }
    }
}

#[test]
fn logical_partitions_are_found_in_whatever_order_their_records_are() {
    let mut image = mbr(&[(DATA, 63, 100), (EXTENDED, 1000, 5000)], 4100);
    set_entry(&mut image, 1000, 0, DATA, 10, 50);
    set_entry(&mut image, 1000, 1, EXTENDED, 3000, 2000);
    set_entry(&mut image, 4000, 0, DATA, 100, 1900);
    set_entry(&mut image, 4000, 1, EXTENDED, 500, 100);
    set_entry(&mut image, 1500, 0, DATA, 7, 20);
    let expected = [
        (1, 63..163),
        (5, 1010..1060),
        (6, 4100..6000),
        (7, 1507..1527),
    ];
    assert_eq!(found(image.clone()), expected);
    let device = Device::new(image, 512);
    assert_eq!(visit(&device, None).unwrap(), files());
    assert_eq!(visit(&device, Some(6)).unwrap(), files());
}

#[test]
fn a_chain_of_records_ends_where_it_loops_or_leaves_its_partition() {
    for link in [0, 500, 5000, 0x00ff_ffff, u32::MAX] {
        let mut image = mbr(&[(EXTENDED, 1000, 5000)], 7000);
        set_entry(&mut image, 1000, 0, DATA, 10, 50);
        set_entry(&mut image, 1000, 1, EXTENDED, 500, 100);
        set_entry(&mut image, 1500, 0, DATA, 10, 50);
        set_entry(&mut image, 1500, 1, EXTENDED, link, 100);
        assert_eq!(
            found(image),
            [(5, 1010..1060), (6, 1510..1560)],
            "{link:#x}"
        );
    }
}

#[test]
fn what_is_left_out_is_counted_and_keeps_its_number() {
    let mut image = mbr(
        &[
            (DATA, 100, 100),
            (DATA, 150, 10),
            (EXTENDED, 1000, 5000),
            (DATA, 9000, 10),
        ],
        4100,
    );
    set_entry(&mut image, 1000, 0, DATA, 9000, 50);
    set_entry(&mut image, 1000, 1, EXTENDED, 3000, 2000);
    set_entry(&mut image, 4000, 0, DATA, 100, 1900);
    let mut device = Device::new(image.clone(), 512);
    // The second entry lies in the first, the fourth behind the disk, and the first logical one as
    // well.
    assert_eq!(block_on(partitions(&mut device)).unwrap().skipped, 3);
    assert_eq!(found(image), [(1, 100..200), (6, 4100..6000)]);
    assert_eq!(visit(&device, Some(6)).unwrap(), files());
}

#[test]
fn a_partition_ends_with_its_disk_and_none_begins_behind_it() {
    let entries = [
        (DATA, 8000, 1000),
        (DATA, 8192, 1),
        (DATA, u32::MAX, u32::MAX),
        (DATA, 0, 100),
    ];
    assert_eq!(found(mbr(&entries, 100)), [(1, 8000..8192)]);
}

#[test]
fn a_volume_that_claims_more_than_its_partition_is_damaged() {
    let device = Device::new(mbr(&[(DATA, 2048, 200)], 2048), 512);
    assert_eq!(visit(&device, None), Err(VolumeError::Damaged));
}

#[test]
fn a_boot_sector_is_no_table() {
    let mut image = fat();
    // Code where the table would be.
    image[446..510].fill(0xb8);
    assert_eq!(found(image.clone()), []);
    image[11] = 0xff;
    assert_eq!(
        visit(&Device::new(image, 512), None),
        Err(VolumeError::NoFileSystem)
    );
}

/// Every partition is on a disk of `total` blocks, and shares none with another one.
fn are_apart(table: Result<Table, VolumeError>, total: u64) -> Result<(), TestCaseError> {
    let Ok(Table { mut partitions, .. }) = table else {
        return Ok(());
    };
    partitions.sort_by_key(|partition| partition.first);
    let mut free = 1;
    for partition in partitions {
        prop_assert!(partition.first >= free && partition.blocks > 0);
        free = partition.first + partition.blocks;
        prop_assert!(free <= total);
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_a_table_says_its_partitions_are_on_the_disk(
        table in proptest::collection::vec(any::<u8>(), 64),
        records in proptest::collection::vec((1_usize..64, 0_usize..4, any::<u8>(), 0_u32..80, 0_u32..80), 0..40),
        protective in any::<bool>(),
    ) {
        let mut image = vec![0; 64 << 10];
        image[446..510].copy_from_slice(&table);
        for slot in 0..4 {
            image[446 + slot * 16] &= 0x80;
        }
        for (record, slot, kind, start, blocks) in records {
            let kind = if kind < 128 { EXTENDED } else { DATA };
            set_entry(&mut image, record, slot, kind, start, blocks);
        }
        set_entry(&mut image, 0, 0, if protective { 0xee } else { EXTENDED }, 1, 127);
        let mut device = Device::new(image, 512);
        let result = block_on(partitions(&mut device));
        prop_assert!(device.take_reads() < 1000);
        are_apart(result, 128)?;
    }

    #[test]
    fn a_gpt_may_say_anything_with_a_checksum_that_is_right(
        fields in proptest::collection::vec((24_usize..92, any::<u8>()), 1..6),
        entry in proptest::collection::vec((0_usize..512, any::<u8>()), 0..6),
    ) {
        let device = gpt(512);
        {
            let mut image = device.image.borrow_mut();
            for (at, byte) in entry {
                image[1024 + at] = byte;
            }
            let entries = hadris_part::raw::crc32(&image[1024..1024 + 128 * 128]);
            image[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
            for (at, byte) in fields {
                image[512 + at] = byte;
            }
            let header = hadris_part::raw::gpt_header_crc(&image[512..1024], 92).unwrap();
            image[512 + 16..512 + 20].copy_from_slice(&header.to_le_bytes());
        }
        let total = device.image.borrow().len() as u64 / 512;
        are_apart(block_on(partitions(&mut device.clone())), total)?;
        let _ = visit(&device, None);
    }
}
