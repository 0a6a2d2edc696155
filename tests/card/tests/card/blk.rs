//! The block function (VIRTIO 1.2, 5.2).

use std::io::Write;

use ifcvf_card::{Card, FileDisk, Function, Plan, Product, RamDisk, Storage};
use virtq::testing::{HeapDma, HeapMemory};

use crate::slot::{Arrived, Line, Slot};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// Indirect descriptors, `FLUSH`, `DISCARD` and `WRITE_ZEROES`.
const FEATURES: u128 = 1 << 28 | 1 << 9 | 1 << 13 | 1 << 14;
/// Of the disk.
const SECTORS: u64 = 64;

/// A card with one disk, and its first queue.
struct Disk {
    slot: Slot,
    lines: Vec<Line>,
    contents: RamDisk,
}

impl Disk {
    fn new() -> Self {
        Self::with_features(FEATURES)
    }

    fn with_features(features: u128) -> Self {
        let contents = RamDisk::new(64);
        let slot = Slot::with_disk(Plan::new(Product::C5000xBlk), &contents);
        let lines = slot.start(features);
        Self {
            slot,
            lines,
            contents,
        }
    }

    /// One request. Returns the status and the data before it.
    fn ask(&mut self, kind: u32, sector: u64, data: &[u8], answer: usize) -> (u8, Vec<u8>) {
        let mut request = kind.to_le_bytes().to_vec();
        request.extend([0; 4]);
        request.extend(sector.to_le_bytes());
        request.extend(data);
        self.lines[0].offer(&request, answer + 1);
        self.slot.kick(0);
        let (written, mut bytes) = self.lines[0].take().unwrap();
        let status = bytes.pop().unwrap();
        if status == OK {
            assert_eq!(written, answer + 1);
        }
        (status, bytes)
    }

    fn zero(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let bytes = ranges.iter().flat_map(|(sector, sectors, flags)| {
            let words = [sectors.to_le_bytes(), flags.to_le_bytes()].concat();
            [&sector.to_le_bytes()[..], &words].concat()
        });
        let bytes: Vec<_> = bytes.collect();
        self.ask(kind, 0, &bytes, 0).0
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut disk = Disk::new();
    let data: Vec<_> = (0..4096_u32).map(|at| (at / 7).to_le_bytes()[0]).collect();
    assert_eq!(disk.ask(OUT, 3, &data, 0).0, OK);
    assert_eq!(disk.ask(IN, 3, &[], 4096), (OK, data.clone()));
    assert_eq!(disk.contents.contents()[3 * 512..][..4096], data);
    assert_eq!(disk.ask(FLUSH, 0, &[], 0).0, OK);
    let counters = disk.slot.card.counters();
    assert_eq!(
        (counters.reads(), counters.writes(), counters.failed()),
        (1, 1, 0)
    );
    disk.slot.assert_lawful();
}

#[test]
fn what_lies_beyond_the_end_is_refused() {
    let mut disk = Disk::new();
    for sector in [SECTORS, SECTORS - 1, u64::MAX, u64::MAX / 512, 1 << 55] {
        assert_eq!(disk.ask(IN, sector, &[], 1024).0, IO_ERROR, "{sector}");
        assert_eq!(disk.ask(OUT, sector, &[1; 1024], 0).0, IO_ERROR, "{sector}");
        assert_eq!(disk.zero(WRITE_ZEROES, &[(sector, 2, 0)]), IO_ERROR);
    }
    assert_eq!(disk.ask(IN, 0, &[], 100).0, IO_ERROR);
    assert_eq!(disk.ask(OUT, 0, &[1; 100], 0).0, IO_ERROR);
    assert!(disk.contents.contents().iter().all(|byte| *byte == 0));
    assert_eq!(disk.slot.card.counters().failed(), 17);
}

#[test]
fn a_disk_has_a_name_and_no_more_than_it_says() {
    let mut disk = Disk::new();
    let (status, name) = disk.ask(GET_ID, 0, &[], 20);
    assert_eq!((status, &name[..10]), (OK, &b"ifcvf-card"[..]));
    assert_eq!(disk.ask(GET_ID, 0, &[], 19).0, IO_ERROR);
    assert_eq!(disk.ask(GET_ID, 1, &[], 20).0, IO_ERROR);
    assert_eq!(disk.ask(FLUSH, 1, &[], 0).0, IO_ERROR);
    assert_eq!(disk.ask(0x7777, 0, &[], 0).0, UNSUPPORTED);
    assert_eq!(disk.ask(14, 0, &[0; 16], 0).0, UNSUPPORTED);
}

#[test]
fn ranges_become_zero_all_or_none() {
    let mut disk = Disk::new();
    let full = vec![0xee; 64 * 512];
    assert_eq!(disk.ask(OUT, 0, &full, 0).0, OK);
    assert_eq!(disk.zero(WRITE_ZEROES, &[(1, 2, 0), (5, 1, 1)]), OK);
    assert_eq!(disk.zero(DISCARD, &[(9, 1, 0)]), OK);
    let zero: Vec<_> = disk
        .contents
        .contents()
        .chunks(512)
        .map(|sector| sector[0] == 0)
        .collect();
    let zero: Vec<_> = (0..64).filter(|sector| zero[*sector]).collect();
    assert_eq!(zero, [1, 2, 5, 9]);
    assert_eq!(disk.zero(DISCARD, &[(20, 1, 0), (21, 1, 1)]), UNSUPPORTED);
    assert_eq!(disk.zero(WRITE_ZEROES, &[(20, 1, 0), (63, 2, 0)]), IO_ERROR);
    assert_eq!(disk.zero(WRITE_ZEROES, &[]), IO_ERROR);
    assert_eq!(disk.zero(WRITE_ZEROES, &[(0, 0x8001, 0)]), IO_ERROR);
    assert_eq!(disk.ask(DISCARD, 0, &[0; 17], 0).0, IO_ERROR);
    assert_eq!(disk.ask(DISCARD, 0, &[0; 17 * 16], 0).0, IO_ERROR);
    assert_eq!(disk.contents.contents()[20 * 512], 0xee);
}

#[test]
fn requests_that_were_not_negotiated_are_not_there() {
    let mut disk = Disk::with_features(0);
    assert_eq!(disk.ask(FLUSH, 0, &[], 0).0, UNSUPPORTED);
    assert_eq!(disk.zero(DISCARD, &[(0, 1, 0)]), UNSUPPORTED);
    assert_eq!(disk.zero(WRITE_ZEROES, &[(0, 1, 0)]), UNSUPPORTED);
    assert_eq!(disk.ask(IN, 0, &[], 512).0, OK);
}

#[test]
fn many_requests_on_both_queues_are_answered() {
    let mut disk = Disk::new();
    for round in 0..50_u8 {
        for queue in [0, 1] {
            for sector in 0..2_u8 {
                let mut request = vec![1, 0, 0, 0, 0, 0, 0, 0];
                request.extend(u64::from(sector + 2 * round % 40).to_le_bytes());
                request.extend([round; 512]);
                disk.lines[queue].offer(&request, 1);
            }
            disk.slot.kick(u16::try_from(queue).unwrap());
            for _ in 0..2 {
                assert_eq!(disk.lines[queue].take().unwrap(), (1, vec![OK]));
            }
        }
    }
    disk.slot.assert_lawful();
}

#[test]
fn a_file_is_a_disk_of_whole_sectors() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 1500]).unwrap();
    let mut disk = FileDisk::new(file, "disk").unwrap();
    assert_eq!(disk.size(), 1024);
    disk.write(512, &[9; 512]).unwrap();
    disk.flush().unwrap();
    let mut bytes = [0; 1024];
    disk.read(0, &mut bytes).unwrap();
    assert_eq!((bytes[511], bytes[512]), (7, 9));
    let memory = std::sync::Arc::new(HeapMemory::new(&HeapDma::new()));
    let plan = Plan::new(Product::ModernBlk);
    let host = std::sync::Arc::<Arrived>::default();
    let card = Card::new(plan, Function::Blk(Box::new(disk)), memory, host).unwrap();
    card.write_config(4, &2_u16.to_le_bytes());
    let mut capacity = [0; 4];
    card.read_bar(0, 0x80, &mut capacity);
    assert_eq!(u32::from_le_bytes(capacity), 2);
}
