//! Whether a file is a kernel that QEMU boots: an ELF program for x86 with a PVH entry point.
//!
//! QEMU says of most other files only that it cannot load them, or boots nothing for ever.
//!
//! Sources: the ELF specification; Xen, `xen/include/public/elfnote.h`
//! (`XEN_ELFNOTE_PHYS32_ENTRY`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use thiserror::Error;

/// Why a file boots nothing.
#[derive(Debug, Error)]
pub enum KernelError {
    /// It cannot be opened or read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// A directory, a device or a pipe.
    #[error("it is not a file")]
    NotAFile,
    /// Not ELF, or cut short.
    #[error("it is no ELF file")]
    NotElf,
    /// ELF for another processor.
    #[error("it is no ELF program for x86-64")]
    OtherProcessor,
    /// No entry point that QEMU could use.
    #[error(
        "it has no PVH entry (an ELF note of Xen's with the type 18), without which QEMU boots no ELF file"
    )]
    NoEntry,
}

/// Looks for what QEMU needs to boot the file.
///
/// # Errors
///
/// A [`KernelError`].
pub fn check(path: &Path) -> Result<(), KernelError> {
    const PT_NOTE: u64 = 4;
    const EM_X86_64: u64 = 62;
    /// A program's notes are shorter, and a file may claim anything.
    const NOTES_MAX: u64 = 64 * 1024;
    if !path.metadata()?.is_file() {
        return Err(KernelError::NotAFile);
    }
    let mut file = File::open(path)?;
    let header = bytes_at(&mut file, 0, 64)?;
    // ELFCLASS64, ELFDATA2LSB.
    if !header.starts_with(b"\x7fELF") || header.len() < 64 {
        return Err(KernelError::NotElf);
    }
    if header[4..6] != [2, 1] || number(&header, 18, 2) != EM_X86_64 {
        return Err(KernelError::OtherProcessor);
    }
    let (table, size, count) = (
        number(&header, 32, 8),
        number(&header, 54, 2),
        number(&header, 56, 2),
    );
    for index in 0..count {
        let at = table.saturating_add(index * size);
        let segment = bytes_at(&mut file, at, 56)?;
        if segment.len() < 56 {
            return Err(KernelError::NotElf);
        }
        if number(&segment, 0, 4) == PT_NOTE {
            let (offset, length) = (number(&segment, 8, 8), number(&segment, 32, 8));
            if has_entry(&bytes_at(&mut file, offset, length.min(NOTES_MAX))?) {
                return Ok(());
            }
        }
    }
    Err(KernelError::NoEntry)
}

/// Whether one of the notes is Xen's with the address of the 32-bit entry point.
fn has_entry(mut notes: &[u8]) -> bool {
    const PHYS32_ENTRY: u64 = 18;
    while notes.len() >= 12 {
        let padded = |length: u64| {
            usize::try_from(length)
                .unwrap_or(usize::MAX)
                .saturating_add(3)
                & !3
        };
        let (name, value) = (padded(number(notes, 0, 4)), padded(number(notes, 4, 4)));
        let kind = number(notes, 8, 4);
        if kind == PHYS32_ENTRY && notes[12..].starts_with(b"Xen\0") {
            return true;
        }
        let next = name.saturating_add(value).saturating_add(12);
        notes = notes.get(next..).unwrap_or_default();
    }
    false
}

/// Up to `count` bytes from `position` on, fewer where the file ends.
fn bytes_at(file: &mut File, position: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // No file is as long as the position that the system refuses.
    if file.seek(SeekFrom::Start(position)).is_ok() {
        file.take(count).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// A little-endian number; 0 where there are no bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
