//! Ranges of a disk that are discarded or filled with zeroes (VIRTIO 1.2, 5.2.6).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use vdpa::blk::{Range, UNMAP};
use virtio::blk::{S, T};

/// Bytes of a range in a request.
pub(crate) const RANGE: usize = Range::LEN;

/// The most sectors of a range to discard.
pub(crate) const DISCARD_SECTORS: u32 = 1 << 21;
/// The most sectors of a range to fill, which may have to be written.
pub(crate) const ZERO_SECTORS: u32 = 1 << 15;

/// What becomes of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clear {
    /// It loses its room in the image, if that is possible.
    Discard,
    /// It reads as zeroes, and keeps its room.
    Fill,
    /// It reads as zeroes, without room if that is possible.
    FillOrDiscard,
}

/// A range, and what is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToClear {
    pub(crate) sector: u64,
    pub(crate) sectors: u32,
    pub(crate) clear: Clear,
}

impl ToClear {
    /// What a request of type `kind` says.
    ///
    /// # Errors
    /// [`S::Unsupp`], if a flag is not one of this type, or the range is too long.
    pub(crate) fn decode(kind: T, bytes: &[u8; RANGE]) -> Result<Self, S> {
        let Range {
            sector,
            sectors,
            flags,
        } = Range::decode(bytes);
        let (clear, most) = match (kind, flags) {
            (T::Discard, 0) => (Clear::Discard, DISCARD_SECTORS),
            (T::WriteZeroes, 0) => (Clear::Fill, ZERO_SECTORS),
            (T::WriteZeroes, UNMAP) => (Clear::FillOrDiscard, ZERO_SECTORS),
            _ => return Err(S::Unsupp),
        };
        if sectors > most {
            return Err(S::Unsupp);
        }
        Ok(Self {
            sector,
            sectors,
            clear,
        })
    }
}

impl Clear {
    /// Does it to `length` bytes of an image, not none, from `start` on.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn apply(self, image: &File, start: u64, length: u64) -> io::Result<()> {
        let way = match self {
            Self::Discard | Self::FillOrDiscard => FallocateFlags::PUNCH_HOLE,
            Self::Fill => FallocateFlags::ZERO_RANGE,
        };
        let flags = way | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(image, flags, start, length)) {
            // Not every file system can. A discard is no more than a hint.
            Err(Errno::OPNOTSUPP) if self == Self::Discard => Ok(()),
            Err(Errno::OPNOTSUPP) => fill(image, start, length),
            result => Ok(result?),
        }
    }
}

fn fill(image: &File, start: u64, length: u64) -> io::Result<()> {
    const ZEROES: &[u8] = &[0; 64 << 10];
    let mut done = 0;
    while done < length {
        let left = usize::try_from(length - done).unwrap_or(ZEROES.len());
        let piece = &ZEROES[..left.min(ZEROES.len())];
        image.write_all_at(piece, start + done)?;
        done += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn decoded(kind: T, sectors: u32, flags: u32) -> Result<Clear, S> {
        let mut bytes = [0; RANGE];
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        ToClear::decode(kind, &bytes).map(|range| range.clear)
    }

    #[test]
    fn flags_that_a_request_does_not_have_are_refused() {
        assert_eq!(decoded(T::Discard, 8, 0), Ok(Clear::Discard));
        assert_eq!(decoded(T::WriteZeroes, 8, 0), Ok(Clear::Fill));
        assert_eq!(decoded(T::WriteZeroes, 8, UNMAP), Ok(Clear::FillOrDiscard));
        // VIRTIO 1.2, 5.2.6.2: neither `unmap` of a discard, nor a flag that nobody knows.
        for (kind, flags) in [(T::Discard, 1), (T::Discard, 2), (T::WriteZeroes, 3)] {
            assert_eq!(decoded(kind, 8, flags), Err(S::Unsupp));
        }
    }

    #[test]
    fn ranges_that_are_too_long_are_refused() {
        for (kind, most) in [
            (T::Discard, DISCARD_SECTORS),
            (T::WriteZeroes, ZERO_SECTORS),
        ] {
            assert!(decoded(kind, most, 0).is_ok());
            assert_eq!(decoded(kind, most + 1, 0), Err(S::Unsupp));
        }
    }

    #[test]
    fn zeroes_are_written_where_the_file_system_knows_no_other_way() {
        // Memory has holes, but fills nothing.
        let image = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
        let length = 200 << 10;
        image.write_all_at(&vec![1; length], 0).unwrap();
        let room = image.metadata().unwrap().blocks();
        let end = length as u64 - 512;
        Clear::Fill.apply(&image, 512, end - 512).unwrap();
        let mut bytes = vec![2; length];
        image.read_exact_at(&mut bytes, 0).unwrap();
        let (first, rest) = bytes.split_at(512);
        let (middle, last) = rest.split_at(length - 1024);
        assert!(first.iter().chain(last).all(|byte| *byte == 1));
        assert!(middle.iter().all(|byte| *byte == 0));
        assert_eq!(image.metadata().unwrap().blocks(), room);
        Clear::FillOrDiscard
            .apply(&image, 0, length as u64)
            .unwrap();
        assert!(image.metadata().unwrap().blocks() < room);
    }
}
