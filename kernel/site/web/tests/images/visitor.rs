//! A client that follows every link of a disk, as the site would answer it, and finds that each
//! question has an answer after a bounded number of reads.

use std::collections::BTreeMap;

use embassy_futures::block_on;
use web::disk::{self, Opened};
use web::escape::Segment;
use web::listing::Page;
use web::path::Target;
use web::pieces::first_piece;
use web::volume::{EntryKind, Found, VolumeError};

use crate::device::Device;

/// The most reads for one question: a full directory in clusters of a sector, and as many links of
/// its chain.
const MOST_READS: u32 = 20_000;

/// How many links are followed, and how much of a file is read.
const MOST_LINKS: usize = 100;
const MOST_BYTES: u64 = 1 << 20;

/// The files that could be read, by their paths. Files too long to be read in whole are not among
/// them.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Opens the disk and follows all links from the root of its volume.
pub fn visit(device: &Device, partition: Option<usize>) -> Result<Files, VolumeError> {
    device.take_reads();
    let opened = block_on(disk::open(device.clone(), partition));
    assert!(device.take_reads() < MOST_READS, "to open the disk");
    let opened = opened.opened?;
    let _ = block_on(opened.volume.count_files(1000));
    assert!(device.take_reads() < 20 * MOST_READS, "to count files");

    let mut files = Files::new();
    let mut directories = vec![String::new()];
    let mut links = 0;
    while let Some(directory) = directories.pop() {
        let target = Target::parse(&directory).unwrap();
        let Ok(Found::Directory(found)) = block_on(opened.volume.find(&target.names)) else {
            continue;
        };
        device.take_reads();
        let Ok(Some(listing)) = block_on(opened.volume.list(found, usize::MAX)) else {
            continue;
        };
        assert!(device.take_reads() < MOST_READS, "to list {directory}");
        let entries = listing.entries.clone();
        let mut pieces = Page::sorted("/files", target, listing);
        let mut page = String::new();
        while let Some(piece) = block_on(pieces.next(&opened.volume)) {
            page.push_str(&piece);
        }
        for entry in entries {
            links += 1;
            if links > MOST_LINKS {
                return Ok(files);
            }
            let path = format!("{directory}/{}", Segment(&entry.name));
            let linked = page.contains(&format!("href=\"./{}", Segment(&entry.name)));
            match entry.kind {
                EntryKind::Damaged => continue,
                EntryKind::Directory => directories.push(path),
                EntryKind::File(_) => {
                    if let Some(bytes) = read(device, &opened, &path) {
                        files.insert(path, bytes);
                    }
                }
            }
            assert!(linked, "{} has no link", entry.name);
        }
    }
    Ok(files)
}

/// What a download would send; `None`, if it would be refused.
fn read(device: &Device, opened: &Opened<Device>, path: &str) -> Option<Vec<u8>> {
    let target = Target::parse(path).expect("a listing has only names that stand in a path");
    device.take_reads();
    let found = block_on(opened.volume.find(&target.names));
    assert_ne!(found, Err(VolumeError::NotFound), "{path} is listed");
    let Ok(Found::File(mut file)) = found else {
        return None;
    };
    let checked = block_on(opened.volume.check(&file));
    assert!(device.take_reads() < MOST_READS, "to find {path}");
    checked.ok()?;
    if file.length > MOST_BYTES {
        return None;
    }
    let (image, block) = (device.image.borrow(), device.block());
    let mut bytes = Vec::new();
    let mut range = 0..file.length;
    while !range.is_empty() {
        // The chain was followed before, so that it can be followed again.
        let extents = block_on(opened.volume.extents(&mut file, range.start)).unwrap();
        assert!(device.take_reads() < MOST_READS, "to read {path}");
        let piece = extents
            .iter()
            .find_map(|extent| first_piece(extent, &range, block, 65_536))
            .unwrap();
        let start = piece.sector * 512;
        assert!(
            start + piece.length as u64 <= opened.length,
            "{path} leaves its partition"
        );
        let at = usize::try_from(opened.start + start).unwrap();
        bytes.extend_from_slice(&image[at..at + piece.length][piece.wanted.clone()]);
        range.start += piece.wanted.len() as u64;
    }
    Some(bytes)
}
