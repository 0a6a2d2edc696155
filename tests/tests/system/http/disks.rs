//! The site on disks with partitions, and on the one that the command line chooses.

use std::fs;
use std::path::PathBuf;

use qemu::device::Disk;
use tempfile::TempDir;
use tests::noise;

use crate::http::{Files, boot};

system_tests![
    files_come_from_the_partition_that_has_them,
    the_command_line_chooses_the_disk_and_the_partition,
    an_entry_without_a_name_costs_its_directory_nothing_else,
];

const SECTOR: usize = 512;

/// The blocks of a partition without a file system, and where the one with files begins.
const EMPTY: u32 = 64;
const START: u32 = 2048;

/// A disk with an MBR: the files are on its second partition, and the third one begins behind the
/// disk.
fn partitioned(files: &Files) -> (TempDir, PathBuf) {
    let volume = fs::read(files.image().path()).unwrap();
    let mut disk = vec![0; START as usize * SECTOR];
    let blocks = u32::try_from(volume.len() / SECTOR).unwrap();
    let entries = [
        (0x83, EMPTY, EMPTY),
        (0x0c, START, blocks),
        (0x83, u32::MAX, EMPTY),
    ];
    for (slot, (kind, start, blocks)) in entries.into_iter().enumerate() {
        let entry = &mut disk[446 + slot * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&u32::to_le_bytes(start));
        entry[12..16].copy_from_slice(&u32::to_le_bytes(blocks));
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(volume);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, disk).unwrap();
    (directory, path)
}

fn files_come_from_the_partition_that_has_them() {
    let bytes = noise::bytes(31, 300_001);
    let (_directory, image) = partitioned(&Files::new().with("deep/file.bin", &bytes));
    let site = boot(&image, |guest| guest);
    let console = site.console().join("\n");
    assert!(
        console.contains("serving blk0p2 (FAT32, 1 file)"),
        "{console}"
    );
    let left_out =
        "site: blk0: partitions left out, because they begin outside the disk or overlap others: 1";
    assert!(console.contains(left_out), "{console}");
    let (status, body) = site.client().body("/files/deep/file.bin", &[]).unwrap();
    assert_eq!((status, body == bytes), (200, true));
    let (_, page) = site.client().body("/api/status", &[]).unwrap();
    assert!(
        String::from_utf8(page)
            .unwrap()
            .contains("\"disk\":\"blk0p2\"")
    );
}

fn the_command_line_chooses_the_disk_and_the_partition() {
    let (_directory, image) = partitioned(&Files::new().with("second.txt", b"second"));
    let first = Files::new().with("first.txt", b"first").image();
    for (word, served, file) in [
        ("", "serving blk0 (FAT32, 1 file)", Some("first.txt")),
        (
            "disk=blk1",
            "serving blk1p2 (FAT32, 1 file)",
            Some("second.txt"),
        ),
        (
            "disk=blk1p2",
            "serving blk1p2 (FAT32, 1 file)",
            Some("second.txt"),
        ),
        (
            "disk=blk1p1",
            "serving no files (the disk holds no FAT file system)",
            None,
        ),
        (
            "disk=blk1p7",
            "serving no files (the disk has no such partition)",
            None,
        ),
        (
            "disk=blk7",
            "serving no files (the disk that disk= names was not found)",
            None,
        ),
        (
            "disk=sda1",
            "serving no files (disk= takes a disk, such as blk1, or a partition, such as blk0p2)",
            None,
        ),
    ] {
        let site = boot(first.path(), |mut guest| {
            guest.disks.push(Disk::new(&image));
            guest.append = format!("{} {word}", guest.append);
            guest
        });
        let console = site.console().join("\n");
        assert!(console.contains(served), "{word}: {console}");
        let path = format!("/files/{}", file.unwrap_or("first.txt"));
        let (status, _) = site.client().body(&path, &[]).unwrap();
        assert_eq!(status, if file.is_some() { 200 } else { 503 }, "{word}");
    }
}

fn an_entry_without_a_name_costs_its_directory_nothing_else() {
    let image = Files::new()
        .with("HELLO.TXT", b"hello")
        .with("other.txt", b"other")
        .image();
    let mut bytes = fs::read(image.path()).unwrap();
    let at = bytes
        .windows(11)
        .position(|name| name == b"HELLO   TXT")
        .unwrap();
    bytes[at..at + 11].fill(b' ');
    fs::write(image.path(), bytes).unwrap();
    let site = boot(image.path(), |guest| guest);
    let console = site.console().join("\n");
    assert!(
        console.contains("serving blk0 (FAT32, 1 file, 1 damaged)"),
        "{console}"
    );
    let (status, page) = site.client().body("/files/?list", &[]).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert_eq!(status, 200, "{page}");
    assert!(
        page.contains("other.txt") && page.contains("left out: 1"),
        "{page}"
    );
    assert_eq!(
        site.client().body("/files/other.txt", &[]).unwrap(),
        (200, b"other".to_vec())
    );
}
