//! GUID partition tables field by field, with checksums that are right.

use std::ops::Range;

use embassy_futures::block_on;
use hadris_part::raw::crc32;
use web::partition::{Table, partitions};
use web::volume::VolumeError;

use crate::device::Device;
use crate::tables::{DATA, gpt, set_entry};
use crate::visitor::visit;
use crate::volumes::files;

/// The blocks of the disk.
const DISK: usize = 8192;

/// A header and what belongs to it.
#[derive(Clone)]
struct Gpt {
    place: usize,
    alternate: u64,
    header_bytes: u32,
    entries_at: usize,
    count: u32,
    entry_bytes: u32,
    /// Slots with their first and last blocks.
    entries: Vec<(usize, u64, u64)>,
}

impl Gpt {
    fn new(entries: &[(usize, u64, u64)]) -> Self {
        Self {
            place: 1,
            alternate: DISK as u64 - 1,
            header_bytes: 92,
            entries_at: 2,
            count: 128,
            entry_bytes: 128,
            entries: entries.to_vec(),
        }
    }

    fn write(&self, image: &mut [u8], block: usize) {
        let at = self.entries_at * block;
        for (slot, first, last) in &self.entries {
            let entry = &mut image[at + slot * self.entry_bytes as usize..];
            entry[..16].fill(0xaf);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        let length = self.count as usize * self.entry_bytes as usize;
        let checksum = image.get(at..at.saturating_add(length)).map_or(0, crc32);
        let header = &mut image[self.place * block..][..block];
        header[..8].copy_from_slice(b"EFI PART");
        header[10] = 1;
        header[12..16].copy_from_slice(&self.header_bytes.to_le_bytes());
        header[24..32].copy_from_slice(&(self.place as u64).to_le_bytes());
        header[32..40].copy_from_slice(&self.alternate.to_le_bytes());
        header[72..80].copy_from_slice(&(self.entries_at as u64).to_le_bytes());
        header[80..84].copy_from_slice(&self.count.to_le_bytes());
        header[84..88].copy_from_slice(&self.entry_bytes.to_le_bytes());
        header[88..92].copy_from_slice(&checksum.to_le_bytes());
        header[16..20].fill(0);
        let length = block.min(self.header_bytes as usize);
        let checksum = crc32(&header[..length]);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A disk with a protective MBR and these tables.
fn disk(block: usize, tables: &[&Gpt]) -> Device {
    let mut image = vec![0; DISK * block];
    set_entry(&mut image, 0, 0, 0xee, 1, u32::MAX);
    for table in tables {
        table.write(&mut image, block);
    }
    Device::new(image, block.try_into().unwrap())
}

/// Partitions by their numbers, and how many entries were left out.
type Found = (Vec<(usize, Range<u64>)>, usize);

fn found(device: &Device) -> Result<Found, VolumeError> {
    device.take_reads();
    let result = block_on(partitions(&mut device.clone()));
    assert!(device.take_reads() < 80, "tables are read once");
    let Table {
        partitions,
        skipped,
        ..
    } = result?;
    let place = |it: &web::partition::Partition| (it.number, it.first..it.first + it.blocks);
    Ok((partitions.iter().map(place).collect(), skipped))
}

#[test]
fn of_a_hybrid_mbr_only_the_gpt_counts() {
    let device = gpt(512);
    {
        let mut image = device.image.borrow_mut();
        set_entry(&mut image, 0, 0, DATA, 3000, 100);
        set_entry(&mut image, 0, 1, 0xee, 1, 2000);
    }
    assert_eq!(visit(&device, None).unwrap(), files());
    let (partitions, skipped) = found(&device).unwrap();
    assert_eq!((partitions.len(), skipped), (3, 0));
    assert!(partitions.iter().all(|(_, blocks)| blocks.start != 3000));
}

#[test]
fn entries_have_the_sizes_of_the_specification() {
    let expected = vec![(1, 2000..2010), (3, 2010..2020), (9, 8191..8192)];
    for block in [512, 4096] {
        let mut table = Gpt::new(&[(0, 2000, 2009), (2, 2010, 2019), (8, 8191, 8191)]);
        table.count = 9;
        for entry_bytes in [128, 256, 512, 1024, 2048, 4096] {
            table.entry_bytes = entry_bytes;
            let device = disk(block, &[&table]);
            assert_eq!(
                found(&device),
                Ok((expected.clone(), 0)),
                "{block} {entry_bytes}"
            );
        }
        for entry_bytes in [0, 64, 127, 192, 384, 8192] {
            table.entry_bytes = entry_bytes;
            let device = disk(block, &[&table]);
            assert_eq!(
                found(&device),
                Err(VolumeError::PartitionTable),
                "{block} {entry_bytes}"
            );
        }
    }
}

#[test]
fn a_table_has_a_mebibyte_at_most() {
    let mut table = Gpt::new(&[(8191, 5000, 5009)]);
    table.count = 8192;
    assert_eq!(
        found(&disk(512, &[&table])),
        Ok((vec![(8192, 5000..5010)], 0))
    );
    for (count, entry_bytes) in [(0, 128), (8193, 128), (257, 4096), (u32::MAX, 4096)] {
        (table.count, table.entry_bytes) = (count, entry_bytes);
        table.entries.clear();
        let device = disk(512, &[&table]);
        assert_eq!(found(&device), Err(VolumeError::PartitionTable), "{count}");
        device.take_reads();
    }
}

#[test]
fn a_header_is_possible_where_it_stands() {
    let good = Gpt::new(&[(0, 2000, 2009)]);
    let longer = Gpt {
        header_bytes: 512,
        ..good.clone()
    };
    assert_eq!(
        found(&disk(512, &[&longer])),
        Ok((vec![(1, 2000..2010)], 0))
    );
    // A header that is too short or longer than its block, a table outside the disk or over the
    // header.
    let bad = |change: fn(&mut Gpt)| {
        let mut table = good.clone();
        table.entries.clear();
        change(&mut table);
        found(&disk(512, &[&table]))
    };
    let changes: [fn(&mut Gpt); 7] = [
        |table| table.header_bytes = 91,
        |table| table.header_bytes = 0,
        |table| table.header_bytes = 513,
        |table| table.header_bytes = u32::MAX,
        |table| table.entries_at = 1,
        |table| table.entries_at = DISK - 31,
        |table| table.entries_at = usize::MAX >> 9,
    ];
    for (case, change) in changes.into_iter().enumerate() {
        assert_eq!(bad(change), Err(VolumeError::PartitionTable), "{case}");
    }
    // A header that was copied from elsewhere.
    let device = disk(512, &[&good]);
    device
        .image
        .borrow_mut()
        .copy_within(512..1024, (DISK - 1) * 512);
    device.image.borrow_mut()[512] = 0;
    assert_eq!(found(&device), Err(VolumeError::PartitionTable));
}

#[test]
fn entries_outside_the_disk_or_on_others_are_counted() {
    let last = DISK as u64 - 1;
    let table = Gpt::new(&[
        (0, 100, 199),
        (1, 199, 300),
        (2, 50, 100),
        (3, 120, 130),
        (4, 400, 399),
        (5, last + 1, last + 5),
        (6, u64::MAX, u64::MAX),
        (7, 0, u64::MAX),
        (8, 200, 300),
        (9, last - 1, u64::MAX),
    ]);
    let expected = vec![(1, 100..200), (9, 200..301), (10, last - 1..last + 1)];
    assert_eq!(found(&disk(512, &[&table])), Ok((expected, 7)));
}

#[test]
fn the_copy_of_a_disk_that_has_grown_is_where_the_header_says() {
    let primary = Gpt {
        alternate: 4095,
        ..Gpt::new(&[(0, 2000, 2009)])
    };
    let copy = Gpt {
        place: 4095,
        entries_at: 4063,
        alternate: 1,
        ..primary.clone()
    };
    let device = disk(512, &[&primary, &copy]);
    // Its table is damaged, and the header is not.
    device.image.borrow_mut()[1024] ^= 1;
    assert_eq!(found(&device), Ok((vec![(1, 2000..2010)], 0)));
    // Two damaged tables that name each other, or a header that names itself.
    device.image.borrow_mut()[4063 * 512] ^= 1;
    assert_eq!(found(&device), Err(VolumeError::PartitionTable));
    let selfish = Gpt {
        alternate: 1,
        ..primary
    };
    let device = disk(512, &[&selfish]);
    device.image.borrow_mut()[1024] ^= 1;
    assert_eq!(found(&device), Err(VolumeError::PartitionTable));
}
