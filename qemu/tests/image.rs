//! Disk images are read back with tools that other people wrote: `fsck.fat` and mtools where they
//! are installed, and always with the file system crate through its own reader.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use hadris_fat::sync::{FatFs, check};
use hadris_fs::sync::Volume;
use hadris_fs::{MountOptions, OpenOptions};
use hadris_storage::host::FileDevice;
use qemu::image::{DiskImage, ImageError, NameError};
use qemu::interrupt::Interrupt;
use tempfile::{TempDir, tempdir};

fn image(directory: &TempDir) -> Result<DiskImage, ImageError> {
    DiskImage::from_directory(directory.path(), &Interrupt::default())
}

fn error(directory: &TempDir) -> ImageError {
    image(directory).expect_err("the directory cannot be stored")
}

/// Checks the volume with the crate's own checker and with `fsck.fat`, if that is there.
fn assert_clean(image: &Path) {
    let mut device = FileDevice::open(image).unwrap();
    let mut findings = Vec::new();
    let mut scratch = vec![0; 1 << 20];
    let report = check(&mut device, &mut scratch, |finding| {
        findings.push(finding.to_string());
    });
    assert!(report.unwrap().is_clean(), "{findings:?}");
    if let Some(output) = run("fsck.fat", &["-n", "-v"], image) {
        assert!(output.contains("files, "), "{output}");
    }
}

/// Runs a tool on the image and returns what it says; `None` where it is not installed.
fn run(tool: &str, arguments: &[&str], image: &Path) -> Option<String> {
    let path = "/usr/sbin:/sbin:".to_string() + &std::env::var("PATH").unwrap();
    let output = Command::new(tool)
        .env("PATH", path)
        .args(arguments)
        .arg(image)
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool}: {text}{complaint}");
    Some(text)
}

fn contents(image: &DiskImage, path: &str) -> Vec<u8> {
    let device = FileDevice::open(image.path()).unwrap();
    let volume = Volume::new(FatFs::mount(device, MountOptions::new().read_only()).unwrap());
    let mut file = volume.open(path, OpenOptions::new().read()).unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut piece).unwrap();
        if length == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&piece[..length]);
    }
}

/// Bytes that repeat only after a long while.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[test]
fn files_and_directories_come_back_byte_for_byte() {
    let site = tempdir().unwrap();
    let large = noise((3 << 20) + 17);
    fs::create_dir_all(site.path().join("docs/deep/deeper")).unwrap();
    fs::create_dir(site.path().join("empty directory")).unwrap();
    for (path, bytes) in [
        ("index.html", &b"<h1>hello</h1>"[..]),
        (
            "docs/A long name with spaces, commas & ümläuts.txt",
            b"text",
        ),
        ("docs/deep/deeper/large.bin", &large),
        ("empty", b""),
        (".hidden", b"dot"),
    ] {
        fs::write(site.path().join(path), bytes).unwrap();
    }
    let image = image(&site).unwrap();
    assert_clean(image.path());
    assert_eq!(contents(&image, "/index.html"), b"<h1>hello</h1>");
    assert_eq!(
        contents(
            &image,
            "/docs/A long name with spaces, commas & ümläuts.txt"
        ),
        b"text"
    );
    assert_eq!(contents(&image, "/docs/deep/deeper/large.bin"), large);
    assert_eq!(contents(&image, "/empty"), b"");
    assert_eq!(contents(&image, "/.hidden"), b"dot");
    let listing = run("mdir", &["-/", "-b", "-i"], image.path());
    if let Some(listing) = listing {
        assert!(listing.contains("/docs/deep/deeper/large.bin"), "{listing}");
        assert!(listing.contains("/empty directory/"), "{listing}");
    }
}

#[test]
fn empty_directory_makes_a_clean_volume() {
    let site = tempdir().unwrap();
    assert_clean(image(&site).unwrap().path());
}

#[test]
fn many_files_in_one_directory_are_all_there() {
    let site = tempdir().unwrap();
    for number in 0..2000 {
        fs::write(
            site.path().join(format!("entry number {number}.txt")),
            number.to_string(),
        )
        .unwrap();
    }
    let image = image(&site).unwrap();
    assert_clean(image.path());
    for number in [0, 999, 1999] {
        let path = format!("/entry number {number}.txt");
        assert_eq!(contents(&image, &path), number.to_string().into_bytes());
    }
}

#[test]
fn modification_times_are_kept() {
    let site = tempdir().unwrap();
    let path = site.path().join("old.txt");
    fs::write(&path, "old").unwrap();
    // 2001-02-03 04:05:06 UTC; FAT counts pairs of seconds.
    let seconds = 981_173_106;
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let image = image(&site).unwrap();
    let device = FileDevice::open(image.path()).unwrap();
    let volume = Volume::new(FatFs::mount(device, MountOptions::new().read_only()).unwrap());
    let modified = volume.metadata("/old.txt").unwrap().modified().unwrap();
    assert_eq!(modified.unix_seconds().unsigned_abs(), seconds);
}

#[test]
fn image_is_sparse_and_goes_with_its_owner() {
    let site = tempdir().unwrap();
    fs::write(site.path().join("small"), noise(10_000)).unwrap();
    let image = image(&site).unwrap();
    let path = image.path().to_path_buf();
    let metadata = path.metadata().unwrap();
    assert!(
        metadata.len() > 200 << 20,
        "FAT32 of 4 KiB clusters is long: {}",
        metadata.len()
    );
    assert!(
        metadata.blocks() * 512 < 8 << 20,
        "it holds little: {}",
        metadata.blocks()
    );
    drop(image);
    assert!(!path.exists());
}

#[test]
fn links_are_followed_and_loops_are_refused() {
    let site = tempdir().unwrap();
    fs::create_dir(site.path().join("real")).unwrap();
    fs::write(site.path().join("real/file"), "here").unwrap();
    symlink("real", site.path().join("alias")).unwrap();
    assert_eq!(contents(&image(&site).unwrap(), "/alias/file"), b"here");
    symlink("..", site.path().join("real/up")).unwrap();
    let error = error(&site);
    assert!(
        matches!(&error, ImageError::Loop(path) if path.ends_with("up")),
        "{error}"
    );
}

#[test]
fn link_to_nothing_is_refused_by_name() {
    let site = tempdir().unwrap();
    symlink("nothing", site.path().join("broken")).unwrap();
    let error = error(&site);
    assert!(matches!(&error, ImageError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("broken"), "{error}");
}

#[test]
fn file_of_four_gib_is_refused() {
    let site = tempdir().unwrap();
    let path = site.path().join("huge.bin");
    File::create(&path).unwrap().set_len(1 << 32).unwrap();
    let error = error(&site);
    assert!(
        matches!(error, ImageError::FileTooLarge(_, 4_294_967_296)),
        "{error}"
    );
    assert!(error.to_string().contains("huge.bin"), "{error}");
}

#[test]
fn names_that_fat_cannot_hold_are_refused() {
    for (name, expected) in [
        (&b"what?.txt"[..], NameError::Character('?')),
        (b"a:b", NameError::Character(':')),
        (b"tab\there", NameError::Character('\t')),
        (b"dot.", NameError::Ending),
        (b"space ", NameError::Ending),
        (b"\xff", NameError::NotUnicode),
    ] {
        let site = tempdir().unwrap();
        fs::write(site.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        let error = error(&site);
        assert!(
            matches!(error, ImageError::Name(_, found) if found == expected),
            "{error}"
        );
    }
}

#[test]
fn names_that_differ_only_in_case_are_refused() {
    let site = tempdir().unwrap();
    fs::write(site.path().join("Readme.txt"), "").unwrap();
    fs::write(site.path().join("README.TXT"), "").unwrap();
    let error = error(&site);
    assert!(matches!(error, ImageError::SameName(..)), "{error}");
}

#[test]
fn what_is_neither_file_nor_directory_is_refused() {
    let site = tempdir().unwrap();
    let _listener = UnixListener::bind(site.path().join("socket")).unwrap();
    let error = error(&site);
    assert!(matches!(error, ImageError::Special(_)), "{error}");
}

#[test]
fn file_instead_of_a_directory_is_refused() {
    let site = tempdir().unwrap();
    let path = site.path().join("file");
    File::create(&path).unwrap().write_all(b"x").unwrap();
    for (path, expected) in [
        (path, "is not a directory"),
        ("/no/such".into(), "cannot be read"),
    ] {
        let error = DiskImage::from_directory(&path, &Interrupt::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
