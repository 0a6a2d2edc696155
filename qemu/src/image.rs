//! Makes a FAT32 disk image from a directory.
//!
//! The image is one volume over the whole disk, without a partition table, in a temporary file
//! that is as long as the volume but holds only what was written. Files are copied piece by piece.
//! FAT keeps no owners, permissions or links: links are followed, the rest is dropped.
//! Source: Microsoft, FAT32 File System Specification 1.03.

mod fat;
mod scan;

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempPath;
use thiserror::Error;

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use scan::Scan;

/// Why a directory makes no disk image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Something cannot be read.
    #[error("{path} cannot be read: {source}", path = .path.display())]
    Unreadable {
        /// What it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory to serve is none.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A link leads to a directory it is in.
    #[error("{} is a link to a directory that contains it", .0.display())]
    Loop(PathBuf),
    /// A socket, a pipe or a device.
    #[error("{} is neither a file nor a directory", .0.display())]
    Special(PathBuf),
    /// FAT keeps the length of a file in 32 bits.
    #[error("{path} is {1} bytes long; FAT32 holds files below 4294967296 (4 GiB)", path = .0.display())]
    FileTooLarge(PathBuf, u64),
    /// A name that FAT cannot store.
    #[error("{path} cannot be stored on FAT32: {1}", path = .0.display())]
    Name(PathBuf, NameError),
    /// Two names that FAT takes for one.
    #[error("{} and {} differ only in case, which FAT32 does not tell apart", .0.display(), .1.display())]
    SameName(PathBuf, PathBuf),
    /// A directory with more entries than FAT allows.
    #[error("{} has too many entries for FAT32, which holds 65536 slots per directory", .0.display())]
    DirectoryTooLarge(PathBuf),
    /// More than a FAT32 volume holds.
    #[error("{path} holds {1} bytes, more than a FAT32 volume does", path = .0.display())]
    VolumeTooLarge(PathBuf, u64),
    /// The program was asked to end.
    #[error("interrupted")]
    Interrupted,
    /// The image cannot be created or written.
    #[error("the disk image cannot be written in {directory}: {message} (set TMPDIR to another directory)",
        directory = .directory.display())]
    Write {
        /// The directory it is in.
        directory: PathBuf,
        /// Why.
        message: String,
    },
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is no Unicode text.
    #[error("its name is not UTF-8")]
    NotUnicode,
    /// It has a character that FAT forbids.
    #[error("its name has the character {0:?}")]
    Character(char),
    /// FAT drops dots and spaces at the end.
    #[error("its name ends with a dot or a space")]
    Ending,
    /// More than 255 UTF-16 units.
    #[error("its name is longer than 255 UTF-16 units")]
    TooLong,
}

/// A disk image in a temporary file, which goes with it.
#[derive(Debug)]
pub struct DiskImage {
    path: TempPath,
}

impl DiskImage {
    /// Copies everything in `directory` to the root of a new FAT32 volume, unless `interrupt`
    /// happens.
    ///
    /// # Errors
    ///
    /// An [`ImageError`] that names the file at fault; no image is left behind.
    pub fn from_directory(directory: &Path, interrupt: &Interrupt) -> Result<Self, ImageError> {
        let scan = Scan::of(directory)?;
        let progress = Progress::bytes(
            format_args!("making a disk image of {}", directory.display()),
            scan.bytes(),
        );
        fat::write(&scan, &progress, interrupt).map(|path| Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
