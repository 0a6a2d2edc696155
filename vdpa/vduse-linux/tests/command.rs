//! The command line of `vduse-blk`, as far as it needs no kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

fn run(words: &[&OsStr]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vduse-blk"));
    command
        .args(words)
        .output()
        .expect("it was built with its tests")
}

fn words<'a>(words: &'a [&str]) -> Vec<&'a OsStr> {
    words.iter().map(OsStr::new).collect()
}

#[test]
fn help_is_no_error() {
    for word in ["-h", "--help"] {
        let output = run(&words(&[word]));
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("--read-only"), "{said}");
    }
}

#[test]
fn what_means_nothing_is_answered_with_the_usage() {
    for wrong in [
        &[][..],
        &["disk0"],
        &["--queues", "0", "disk0", "image"],
        &["--queues"],
        &["--size", "3", "disk0", "image"],
        &["--unknown", "disk0", "image"],
        &["disk0", "image", "more"],
        &["--destroy", "disk0", "image"],
        // A device is a file of one folder.
        &["a/b", "image"],
        &["..", "image"],
        &["", "image"],
    ] {
        let output = run(&words(wrong));
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn names_of_any_bytes_end_in_a_message() {
    let bytes = OsStr::from_bytes(b"image-\xff");
    let output = run(&[OsStr::new("disk0"), bytes]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("image-"));
    assert_eq!(run(&[bytes, bytes]).status.code(), Some(2));
}

#[test]
fn folder_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&[
        OsStr::new("--read-only"),
        OsStr::new("disk0"),
        folder.path().as_ref(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("neither a file nor a disk"), "{said}");
}
