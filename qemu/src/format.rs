//! What kind of disk image a file is, by its content.
//!
//! QEMU is always told the format: one it guessed would be the guest's choice, who writes the first
//! sector of a raw image. And an image of one format is never attached as another, because the
//! guest would write into the other one's structures. Names and extensions say nothing here.
//!
//! Sources: QEMU, `docs/interop/qcow2.txt`, `block/{vmdk,vdi,vhdx,vpc,qed,luks,parallels}.c`;
//! ECMA-119, 8.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;

/// The unit of a disk's length.
const SECTOR: u64 = 512;

/// A format that a disk of the guest may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk, and nothing else.
    #[default]
    Raw,
    /// QEMU's own, version 2 or 3, complete in its file.
    Qcow2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

/// Whether a guest may write to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes.
    ReadWrite,
    /// Reads; the device refuses writes.
    ReadOnly,
}

/// An image that can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
    /// Whether the guest may write to it.
    pub access: Access,
    /// Whether it is the image of a CD or DVD, which nobody writes to.
    pub is_iso: bool,
}

/// Why an image is not attached.
#[derive(Debug, Error)]
#[error("--disk {}: {reason}", .path.display())]
pub struct FormatError {
    path: PathBuf,
    reason: Reason,
}

/// What is wrong with it.
#[derive(Debug, Error)]
pub enum Reason {
    /// It cannot be opened or read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is open to no writer.
    #[error("it cannot be written to ({0}); --read-only attaches it as it is")]
    Unwritable(io::Error),
    /// A directory.
    #[error("it is a directory; --serve takes one")]
    Directory,
    /// A pipe, a socket or a terminal.
    #[error("it is neither a file nor a block device")]
    Special,
    /// A block device with a mounted file system, or in another use.
    #[error("this host uses the block device; unmount it, or attach it with --read-only")]
    InUse,
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// The length of no disk.
    #[error("it is {0} bytes long, which is no whole number of sectors of 512 bytes")]
    Length(u64),
    /// A format that the guest cannot be given.
    #[error("it is {0}; `qemu-img convert -O raw IMAGE NEW` makes a raw image of it")]
    Foreign(&'static str),
    /// A compressed file.
    #[error("it is compressed by {0}; decompress it first")]
    Compressed(&'static str),
    /// A header that makes no sense.
    #[error("its qcow2 header is damaged")]
    Damaged,
    /// Marked by who wrote it.
    #[error("it is marked as corrupt; `qemu-img check -r all IMAGE` repairs it")]
    Corrupt,
    /// A newer format.
    #[error("it needs qcow2 features that are not known here")]
    Features,
    /// What it does not hold is in a file that it names.
    #[error(
        "it is based on another file that it names, which could be any of this host's; \
         `qemu-img convert -O qcow2 IMAGE NEW` makes a complete image of it"
    )]
    BackingFile,
    /// Its data is in a file that it names.
    #[error(
        "its data is in another file that it names, which could be any of this host's; \
         `qemu-img convert -O qcow2 IMAGE NEW` makes a complete image of it"
    )]
    DataFile,
    /// Encrypted.
    #[error("it is encrypted, and nobody here has its key")]
    Encrypted,
}

impl Image {
    /// Looks at what is at `path`, to attach it with this `access`. The image of a CD is attached
    /// for reading alone.
    ///
    /// # Errors
    ///
    /// A [`FormatError`] that names the image and what to do about it.
    pub fn open(path: &Path, access: Access) -> Result<Self, FormatError> {
        inspect(path, access).map_err(|reason| FormatError {
            path: path.into(),
            reason,
        })
    }

    /// A raw image that is known to be one.
    pub fn raw(path: impl Into<PathBuf>, access: Access) -> Self {
        Self {
            path: path.into(),
            format: Format::Raw,
            access,
            is_iso: false,
        }
    }
}

fn inspect(path: &Path, access: Access) -> Result<Image, Reason> {
    // Opening a pipe would wait for its other end.
    let kind = path.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Reason::Directory);
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Reason::Special);
    }
    let mut file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Err(Reason::Empty);
    }
    let found = recognize(&mut file, length)?;
    let (format, is_iso) = match found {
        Content::Disk(format) => (format, false),
        Content::Iso => (Format::Raw, true),
    };
    if format == Format::Raw && !length.is_multiple_of(SECTOR) {
        return Err(Reason::Length(length));
    }
    let access = if is_iso { Access::ReadOnly } else { access };
    if access == Access::ReadWrite {
        // Without O_CREAT, O_EXCL is about the use of a block device alone (open(2)).
        let exclusive = if kind.is_block_device() {
            OFlags::EXCL
        } else {
            OFlags::empty()
        };
        let flags = (OFlags::NONBLOCK | exclusive).bits().cast_signed();
        File::options()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy if kind.is_block_device() => Reason::InUse,
                _ => Reason::Unwritable(error),
            })?;
    }
    Ok(Image {
        path: path.into(),
        format,
        access,
        is_iso,
    })
}

enum Content {
    Disk(Format),
    Iso,
}

/// The formats that are told by their first bytes, or by some at a place near them.
const FOREIGN: [(u64, &[u8], &str); 13] = [
    (0, b"KDMV", "a VMware image (VMDK)"),
    (0, b"COWD", "a VMware image (VMDK)"),
    (
        0,
        b"# Disk DescriptorFile",
        "a VMware image's description (VMDK)",
    ),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox image (VDI)"),
    (0, b"vhdxfile", "a Hyper-V image (VHDX)"),
    (0, b"conectix", "a Virtual PC image (VHD)"),
    (0, b"QED\0", "a QED image"),
    (0, b"QFI\xfb\0\0\0\x01", "a qcow image of version 1"),
    (0, b"LUKS\xba\xbe", "encrypted by LUKS"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"Bochs Virtual HD Image", "a Bochs image"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "a cloop image"),
];

/// The formats that are told by what starts their last sector.
const FOREIGN_AT_THE_END: [(&[u8], &str); 2] = [
    (b"conectix", "a Virtual PC image (VHD)"),
    (b"koly", "an Apple disk image (DMG)"),
];

const COMPRESSED: [(&[u8], &str); 6] = [
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
];

/// Where the first volume descriptor of a CD says `CD001` (ECMA-119, 8.1).
const ISO: (u64, &[u8]) = (16 * 2048 + 1, b"CD001");

fn recognize(file: &mut File, length: u64) -> Result<Content, Reason> {
    let start = bytes_at(file, 0, 512)?;
    let has = |at: u64, magic: &[u8]| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        start.get(at..).is_some_and(|rest| rest.starts_with(magic))
    };
    if has(0, b"QFI\xfb") && !has(0, b"QFI\xfb\0\0\0\x01") {
        return qcow2(&start, length).map(|()| Content::Disk(Format::Qcow2));
    }
    if let Some((_, _, name)) = FOREIGN.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Err(Reason::Foreign(name));
    }
    if let Some((_, name)) = COMPRESSED.iter().find(|(magic, _)| has(0, magic)) {
        return Err(Reason::Compressed(name));
    }
    // The footer of a VHD of a fixed length may be one byte short (QEMU, `block/vpc.c`).
    for footer in [SECTOR, SECTOR - 1] {
        let end = bytes_at(file, length.saturating_sub(footer), 8)?;
        let found = FOREIGN_AT_THE_END
            .iter()
            .find(|(magic, _)| end.starts_with(magic));
        if let Some((_, name)) = found {
            return Err(Reason::Foreign(name));
        }
    }
    let (at, magic) = ISO;
    Ok(if bytes_at(file, at, magic.len())? == magic {
        Content::Iso
    } else {
        Content::Disk(Format::Raw)
    })
}

/// Up to `count` bytes from `position` on, fewer where the file ends.
fn bytes_at(file: &mut File, position: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    file.seek(SeekFrom::Start(position))?;
    file.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether an image with this header is complete, and whole as far as the header tells.
fn qcow2(header: &[u8], length: u64) -> Result<(), Reason> {
    /// Header lengths of version 2, and of version 3 at least.
    const LENGTHS: [u64; 2] = [72, 104];
    const CORRUPT: u64 = 1 << 1;
    const EXTERNAL_DATA: u64 = 1 << 2;
    /// Dirty, corrupt, external data, compression type, extended L2 entries.
    const KNOWN: u64 = 0b1_1111;
    let number = |at: usize, length: usize| {
        let bytes = header.get(at..at + length).ok_or(Reason::Damaged)?;
        Ok::<_, Reason>(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    };
    let version = number(4, 4)?;
    let least = match version {
        2 => LENGTHS[0],
        3 => LENGTHS[1],
        _ => return Err(Reason::Features),
    };
    let (cluster_bits, size) = (number(20, 4)?, number(24, 8)?);
    if length < least || !(9..=21).contains(&cluster_bits) {
        return Err(Reason::Damaged);
    }
    if number(8, 8)? != 0 {
        return Err(Reason::BackingFile);
    }
    if number(32, 4)? != 0 {
        return Err(Reason::Encrypted);
    }
    if version == 3 {
        let features = number(72, 8)?;
        if features & EXTERNAL_DATA != 0 {
            return Err(Reason::DataFile);
        }
        if features & CORRUPT != 0 {
            return Err(Reason::Corrupt);
        }
        if features & !KNOWN != 0 {
            return Err(Reason::Features);
        }
        if number(100, 4)? < least {
            return Err(Reason::Damaged);
        }
    }
    match size {
        0 => Err(Reason::Empty),
        size if !size.is_multiple_of(SECTOR) => Err(Reason::Length(size)),
        _ => Ok(()),
    }
}
