//! The volume against images that `hadris-fat`'s own formatter makes, and against broken ones.

use super::*;
use crate::path::Target;
use crate::pieces::first_piece;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use embassy_futures::block_on;
use hadris_fat::FatOptions;
use hadris_fat::sync::{FatFs as Writer, write};
use hadris_fat_raw::FatKind;
use hadris_fs::sync::Volume as Writable;
use hadris_fs::{Content, MountOptions, Node, OpenOptions, Tree};
use hadris_storage::{BlockSize, MemDevice};
use std::io::Write;

const FAT32_BYTES: u64 = 40 << 20;
/// Enough for every directory here.
const MEMORY: usize = 1 << 24;

fn sample(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + index / 512) as u8)
        .collect()
}

fn image() -> Vec<u8> {
    let mut tree = Tree::new();
    for (path, content) in [
        ("readme.txt", sample(5)),
        ("Zoo/animals and plants.html", sample(70_000)),
        ("Zoo/empty", Vec::new()),
        ("Zoo/deeper/ü.bin", sample(513)),
        ("alpha.txt", sample(4096)),
    ] {
        tree.insert(path, Node::file(Content::bytes(content)))
            .unwrap();
    }
    let options = FatOptions::new()
        .with_size(FAT32_BYTES)
        .with_kind(FatKind::Fat32);
    let mut image = Vec::new();
    write(&mut image, &tree, &options).unwrap();
    image
}

fn mount(image: Vec<u8>) -> Result<Volume<Vec<u8>>, VolumeError> {
    block_on(Volume::mount(image))
}

fn find(volume: &Volume<Vec<u8>>, path: &str) -> Result<Found, VolumeError> {
    block_on(volume.find(&Target::parse(path).unwrap().names))
}

fn file(volume: &Volume<Vec<u8>>, path: &str) -> File {
    match find(volume, path).unwrap() {
        Found::File(file) => file,
        Found::Directory(_) => panic!("{path} is a directory"),
    }
}

/// Reads a file the way the site does, straight from the image.
fn contents(volume: &Volume<Vec<u8>>, image: &[u8], file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut position = 0;
    while position < file.length {
        for extent in block_on(volume.extents(file, position)).unwrap() {
            while let Some(piece) = first_piece(&extent, &(position..file.length), 512, 16_384) {
                let start = piece.sector as usize * 512;
                let read = &image[start..start + piece.length];
                position += piece.wanted.len() as u64;
                bytes.extend_from_slice(&read[piece.wanted]);
            }
        }
    }
    bytes
}

#[test]
fn files_are_found_whatever_the_case_of_their_names() {
    let volume = mount(image()).unwrap();
    assert_eq!(
        file(&volume, "/zoo/Animals%20and%20PLANTS.html").length,
        70_000
    );
    assert_eq!(file(&volume, "/Zoo/deeper/%C3%BC.bin").length, 513);
}

#[test]
fn paths_that_lead_nowhere_are_not_found() {
    let volume = mount(image()).unwrap();
    let long = format!("/{}", "x".repeat(2000));
    for path in [
        "/nothing",
        "/readme.txt/x",
        "/Zoo/a:b",
        "/Zoo/*",
        long.as_str(),
    ] {
        assert_eq!(find(&volume, path), Err(VolumeError::NotFound), "{path}");
    }
}

#[test]
fn a_directory_is_listed_with_its_directories_first() {
    let volume = mount(image()).unwrap();
    let Found::Directory(root) = find(&volume, "/").unwrap() else {
        panic!("no directory")
    };
    let listing = block_on(volume.list(root, MEMORY)).unwrap().unwrap();
    assert_eq!((listing.skipped, listing.cut), (0, None));
    let shown: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.kind))
        .collect();
    assert_eq!(
        shown,
        [
            ("Zoo", EntryKind::Directory),
            ("alpha.txt", EntryKind::File(4096)),
            ("readme.txt", EntryKind::File(5)),
        ]
    );
}

#[test]
fn files_are_counted_up_to_the_limit() {
    let volume = mount(image()).unwrap();
    let all = block_on(volume.count_files(100)).unwrap();
    assert_eq!(
        (all, all.to_string().as_str()),
        (
            FileCount {
                files: 5,
                more: false,
                damaged: 0,
            },
            "5 files"
        )
    );
    let some = block_on(volume.count_files(3)).unwrap();
    assert_eq!(some.to_string(), "more than 3 files");
}

#[test]
fn extents_lead_to_the_bytes_of_a_file() {
    let image = image();
    let volume = mount(image.clone()).unwrap();
    for (path, length) in [("/zoo/animals and plants.html", 70_000), ("/zoo/empty", 0)] {
        assert_eq!(
            contents(&volume, &image, &mut file(&volume, path)),
            sample(length),
            "{path}"
        );
    }
}

#[test]
fn a_file_in_one_stretch_is_one_extent() {
    let volume = mount(image()).unwrap();
    let extents =
        block_on(volume.extents(&mut file(&volume, "/zoo/animals and plants.html"), 0)).unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!(extents[0].len(), 70_000);
}

#[test]
fn a_scattered_file_is_put_together() {
    const PARTS: usize = 100;
    const PART: usize = 5000;
    let device = MemDevice::new(image(), BlockSize::new(512).unwrap());
    let writable = Writable::new(Writer::mount(device, MountOptions::new()).unwrap());
    for part in 0..PARTS {
        for name in ["/one.bin", "/two.bin"] {
            let options = OpenOptions::new().write().create().append();
            let mut file = writable.open(name, options).unwrap();
            file.write_all(&sample(PARTS * PART)[part * PART..][..PART])
                .unwrap();
            file.close().unwrap();
        }
    }
    let fs = writable.into_inner().unwrap();
    let image = fs.unmount().unwrap().into_inner();

    let volume = mount(image.clone()).unwrap();
    let mut scattered = file(&volume, "/one.bin");
    assert!(block_on(volume.extents(&mut scattered, 0)).unwrap().len() > 10);
    assert_eq!(
        contents(&volume, &image, &mut scattered),
        sample(PARTS * PART)
    );
}

#[test]
fn a_disk_without_a_file_system_is_told_from_a_damaged_one() {
    assert_eq!(
        mount(vec![0; 1 << 20]).unwrap_err(),
        VolumeError::NoFileSystem
    );
    assert_eq!(mount(Vec::new()).unwrap_err(), VolumeError::NoFileSystem);
    let mut truncated = image();
    truncated.truncate(1 << 20);
    assert_eq!(mount(truncated).unwrap_err(), VolumeError::Damaged);
}

const FIRST_FILE_CLUSTER: u32 = 3;

/// The image with the same entry in place of every chain of the first clusters, whichever file owns
/// them.
fn with_broken_chains(entry: u32) -> Vec<u8> {
    const RESERVED_SECTORS: usize = 14;
    let mut image = image();
    let reserved = u16::from_le_bytes([image[RESERVED_SECTORS], image[RESERVED_SECTORS + 1]]);
    let table = usize::from(reserved) * 512;
    for cluster in FIRST_FILE_CLUSTER as usize..FIRST_FILE_CLUSTER as usize + 200 {
        let at = table + cluster * 4;
        image[at..at + 4].copy_from_slice(&entry.to_le_bytes());
    }
    image
}

#[test]
fn a_chain_that_ends_early_or_leaves_the_volume_is_damage() {
    for entry in [0, 1, 0x0fff_ffff, 0x0fff_fff7, 0x00ff_ffff] {
        let volume = mount(with_broken_chains(entry)).unwrap();
        let mut file = file(&volume, "/zoo/animals and plants.html");
        let result = block_on(volume.extents(&mut file, 60_000));
        assert_eq!(result, Err(VolumeError::Damaged), "{entry:#x}");
        let result = block_on(volume.check(&file));
        assert_eq!(result, Err(VolumeError::Damaged), "{entry:#x}");
    }
}

#[test]
fn a_chain_that_loops_is_damage() {
    let volume = mount(with_broken_chains(FIRST_FILE_CLUSTER)).unwrap();
    let mut file = file(&volume, "/zoo/animals and plants.html");
    assert_eq!(block_on(volume.check(&file)), Err(VolumeError::Damaged));
    let result = block_on(volume.extents(&mut file, 0));
    assert_eq!(result, Err(VolumeError::Damaged));
}

/// The image with the slot of the short name `short` changed.
fn with_slot(short: &[u8; 11], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = image();
    let at = image.windows(11).position(|bytes| bytes == short).unwrap();
    change(&mut image[at..at + 32]);
    image
}

/// The names in the root, what they stand for, and how many entries were left out.
fn root(image: Vec<u8>) -> (Vec<(String, EntryKind)>, u32) {
    let volume = mount(image).unwrap();
    let listing = block_on(volume.list(volume.root(), MEMORY))
        .unwrap()
        .unwrap();
    assert_eq!(listing.cut, None);
    let named = |entry: Entry| (entry.name, entry.kind);
    let entries = listing.entries.into_iter().map(named).collect();
    (entries, listing.skipped)
}

#[test]
fn an_entry_without_a_name_is_left_out_and_the_rest_is_served() {
    for name in [
        *b"           ",
        *b"        TXT",
        *b"RE\x01DME  TXT",
        *b"RE/DME  TXT",
        *b"RE\\DME  TXT",
        *b"..\0        ",
    ] {
        let image = with_slot(b"README  TXT", |slot| slot[..11].copy_from_slice(&name));
        let (entries, skipped) = root(image);
        let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, skipped), (vec!["Zoo", "alpha.txt"], 1), "{name:?}");
    }
}

#[test]
fn an_entry_whose_clusters_are_elsewhere_is_shown_as_damaged_and_not_opened() {
    for cluster in [0, 1, 0x0fff_ffff_u32] {
        let image = with_slot(b"README  TXT", |slot| {
            let [low @ .., third, fourth] = cluster.to_le_bytes();
            slot[20..22].copy_from_slice(&[third, fourth]);
            slot[26..28].copy_from_slice(&low);
        });
        let damaged = ("readme.txt".to_string(), EntryKind::Damaged);
        assert!(root(image.clone()).0.contains(&damaged), "{cluster}");
        let found = find(&mount(image).unwrap(), "/readme.txt");
        assert_eq!(found, Err(VolumeError::Damaged), "{cluster}");
    }
    let larger = with_slot(b"README  TXT", |slot| slot[28..32].fill(0xff));
    let damaged = ("readme.txt".to_string(), EntryKind::Damaged);
    assert!(root(larger).0.contains(&damaged));
}

#[test]
fn a_long_name_that_no_path_leads_to_gives_way_to_the_short_one() {
    let long = "animals and plants.html";
    let first: Vec<u8> = long.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for unit in [0xd800, u16::from(b'/'), u16::from(b'\\'), 1] {
        let mut image = image();
        let at = image.windows(10).position(|bytes| bytes == &first[..10]);
        let at = at.unwrap();
        image[at..at + 2].copy_from_slice(&u16::to_le_bytes(unit));
        let volume = mount(image).unwrap();
        let Found::Directory(zoo) = find(&volume, "/zoo").unwrap() else {
            panic!("no directory")
        };
        let listing = block_on(volume.list(zoo, MEMORY)).unwrap().unwrap();
        let shown = listing
            .entries
            .iter()
            .find(|entry| entry.kind == EntryKind::File(70_000));
        let name = &shown.unwrap().name;
        assert!(name.is_ascii() && name.len() <= 12, "{name:?}");
        assert!(matches!(
            block_on(volume.find_entry(zoo, name)),
            Ok(Found::File(_))
        ));
    }
}

#[test]
fn every_name_of_a_listing_leads_to_its_entry() {
    let odd = [
        "a b",
        "Ünïcode",
        "100%",
        "x.y.z",
        "semi;colon",
        "#1",
        "+",
        "~",
    ];
    let mut tree = Tree::new();
    for name in odd {
        let file = Node::file(Content::bytes(Vec::new()));
        tree.insert(name, file).unwrap();
    }
    let mut image = Vec::new();
    let options = FatOptions::new()
        .with_size(FAT32_BYTES)
        .with_kind(FatKind::Fat32);
    write(&mut image, &tree, &options).unwrap();
    let volume = mount(image).unwrap();
    let listing = block_on(volume.list(volume.root(), MEMORY))
        .unwrap()
        .unwrap();
    assert_eq!(listing.entries.len(), odd.len());
    for entry in listing.entries {
        let path = format!("/{}", crate::escape::Segment(&entry.name));
        assert!(matches!(find(&volume, &path), Ok(Found::File(_))), "{path}");
    }
}

#[test]
fn a_directory_that_contains_itself_is_followed_for_a_bounded_time() {
    let mut image = image();
    let zoo = image.windows(11).position(|bytes| bytes == b"ZOO        ");
    let zoo = zoo.unwrap();
    let cluster = [&image[zoo + 20..zoo + 22], &image[zoo + 26..zoo + 28]].concat();
    let deeper = image.windows(11).position(|bytes| bytes == b"DEEPER     ");
    let deeper = deeper.unwrap();
    image[deeper + 20..deeper + 22].copy_from_slice(&cluster[..2]);
    image[deeper + 26..deeper + 28].copy_from_slice(&cluster[2..]);
    let volume = mount(image).unwrap();
    let path = format!("/zoo{}", "/deeper".repeat(500));
    assert!(matches!(find(&volume, &path), Ok(Found::Directory(_))));
    let count = block_on(volume.count_files(1000)).unwrap();
    assert!(count.more);
}

#[test]
fn a_long_directory_is_shown_in_pieces_without_being_held() {
    let names: Vec<_> = (0..1000)
        .map(|number| format!("file number {number}.txt"))
        .collect();
    let mut tree = Tree::new();
    for name in &names {
        tree.insert(name.as_str(), Node::file(Content::bytes(Vec::new())))
            .unwrap();
    }
    let options = FatOptions::new()
        .with_size(FAT32_BYTES)
        .with_kind(FatKind::Fat32);
    let mut image = Vec::new();
    write(&mut image, &tree, &options).unwrap();
    let volume = mount(image).unwrap();
    assert_eq!(block_on(volume.list(volume.root(), 50_000)), Ok(None));
    let whole = block_on(volume.list(volume.root(), MEMORY))
        .unwrap()
        .unwrap();
    let mut page = crate::listing::Page::unsorted("/files", Target::default(), volume.root());
    let (mut text, mut count) = (String::new(), 0);
    while let Some(piece) = block_on(page.next(&volume)) {
        assert!(piece.len() < 16 << 10);
        text.push_str(&piece);
        count += 1;
    }
    assert!(count > 20, "{count}");
    for name in &names {
        assert!(text.contains(&format!(">{name}</a>")), "{name}");
    }
    assert!(text.contains("1000 files, 0 B; too many to be sorted</footer>"));
    let mut page = crate::listing::Page::sorted("/files", Target::default(), whole);
    let mut sorted = String::new();
    while let Some(piece) = block_on(page.next(&volume)) {
        sorted.push_str(&piece);
    }
    assert_eq!(sorted.len() + "; too many to be sorted".len(), text.len());
}
