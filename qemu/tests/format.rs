//! What an image is, and whether it is attached, is a matter of its content.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

use std::fs;

use qemu::format::{Access, Format, Image};
use tempfile::tempdir;

/// An image of 64 KiB with these bytes at these places.
fn image(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; 64 << 10];
    for (at, bytes) in parts {
        image[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// The header of a qcow2 image of 1 MiB, changed.
fn qcow2(version: u8, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = image(&[
        (0, b"QFI\xfb\0\0\0"),
        (7, &[version]),
        (23, &[16]),
        (29, &[16]),
        (103, &[104]),
    ]);
    for (at, part) in parts {
        bytes[*at..*at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn open(bytes: &[u8], access: Access) -> Result<Image, String> {
    let directory = tempdir().unwrap();
    // The name says something else.
    let path = directory.path().join("disk.raw");
    fs::write(&path, bytes).unwrap();
    Image::open(&path, access).map_err(|error| error.to_string())
}

#[test]
fn raw_and_qcow2_images_are_attached_as_what_they_are() {
    for access in [Access::ReadWrite, Access::ReadOnly] {
        for (bytes, format) in [
            (image(&[]), Format::Raw),
            (image(&[(510, &[0x55, 0xaa])]), Format::Raw),
            (image(&[(3, b"QFI\xfb")]), Format::Raw),
            (qcow2(2, &[]), Format::Qcow2),
            (qcow2(3, &[]), Format::Qcow2),
            // Dirty, with a compression type and extended entries.
            (qcow2(3, &[(79, &[0b1_1001])]), Format::Qcow2),
        ] {
            let image = open(&bytes, access).unwrap();
            assert_eq!(
                (image.format, image.access, image.is_iso),
                (format, access, false)
            );
        }
    }
}

#[test]
fn the_image_of_a_cd_is_never_written_to() {
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let image = open(&image(&[(32_769, b"CD001")]), access).unwrap();
        assert_eq!(
            (image.format, image.access, image.is_iso),
            (Format::Raw, Access::ReadOnly, true)
        );
    }
}

#[test]
fn other_formats_are_named_and_not_attached_as_raw() {
    let last = (64 << 10) - 512;
    for (at, magic, part) in [
        (0, &b"KDMV"[..], "VMDK"),
        (0, b"COWD", "VMDK"),
        (0, b"# Disk DescriptorFile\nversion=1", "VMDK"),
        (64, b"\x7f\x10\xda\xbe", "VDI"),
        (0, b"vhdxfile", "VHDX"),
        (0, b"conectix", "VHD"),
        (last, b"conectix", "VHD"),
        (last + 1, b"conectix", "VHD"),
        (last, b"koly", "DMG"),
        (0, b"QED\0", "QED"),
        (0, b"QFI\xfb\0\0\0\x01", "version 1"),
        (0, b"LUKS\xba\xbe\0\x02", "encrypted by LUKS"),
        (0, b"WithoutFreeSpace", "Parallels"),
        (0, b"WithouFreSpacExt", "Parallels"),
        (0, b"Bochs Virtual HD Image", "Bochs"),
        (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
        (0, b"\x1f\x8b\x08", "gzip"),
        (0, b"\xfd7zXZ\0", "xz"),
        (0, b"BZh9", "bzip2"),
        (0, b"\x28\xb5\x2f\xfd", "zstd"),
        (0, b"PK\x03\x04", "zip"),
    ] {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let error = open(&image(&[(at, magic)]), access).unwrap_err();
            assert!(
                error.starts_with("--disk /") && error.contains(part),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

#[test]
fn a_qcow2_image_that_is_not_complete_or_whole_is_refused() {
    for (bytes, part) in [
        (qcow2(3, &[(15, &[1])]), "based on another file"),
        (qcow2(2, &[(8, &[1])]), "based on another file"),
        (qcow2(3, &[(79, &[1 << 2])]), "data is in another file"),
        (qcow2(3, &[(79, &[1 << 1])]), "marked as corrupt"),
        (qcow2(3, &[(79, &[1 << 5])]), "not known here"),
        (qcow2(3, &[(72, &[1])]), "not known here"),
        (qcow2(3, &[(35, &[1])]), "encrypted"),
        (qcow2(2, &[(35, &[2])]), "encrypted"),
        (qcow2(4, &[]), "not known here"),
        (qcow2(3, &[(23, &[8])]), "damaged"),
        (qcow2(3, &[(23, &[22])]), "damaged"),
        (qcow2(3, &[(103, &[72])]), "damaged"),
        (qcow2(3, &[(29, &[0])]), "empty"),
        (qcow2(3, &[(31, &[1])]), "no whole number of sectors"),
        (qcow2(2, &[])[..60].to_vec(), "damaged"),
        (qcow2(3, &[])[..8].to_vec(), "damaged"),
        (b"QFI\xfb".to_vec(), "damaged"),
    ] {
        let error = open(&bytes, Access::ReadOnly).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn lengths_that_no_disk_has_are_refused() {
    for (length, part) in [
        (0, "empty"),
        (1, "1 bytes"),
        (511, "511 bytes"),
        (513, "513 bytes"),
    ] {
        let error = open(&vec![0; length], Access::ReadOnly).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    open(&[0; 512], Access::ReadOnly).unwrap();
}
