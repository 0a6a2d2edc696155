//! Cuts a range of a file into disk requests: whole sectors, never more than one transfer holds.

use core::ops::Range;

use hadris_fs::Extent;

/// The unit of positions on a disk, whatever its block size (VIRTIO 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// One disk request and the bytes of its answer that belong to the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first sector to read.
    pub sector: u64,
    /// How many bytes to read.
    pub length: usize,
    /// Which of these bytes were asked for.
    pub wanted: Range<usize>,
}

/// The piece with the first bytes of `range` that lie in `extent`, in whole blocks of `block` bytes
/// and not longer than `limit` bytes.
///
/// `None`, if the extent does not hold the first byte of the range, lies where no disk has bytes,
/// or the limit is below a block.
#[must_use]
pub fn first_piece(
    extent: &Extent,
    range: &Range<u64>,
    block: usize,
    limit: usize,
) -> Option<Piece> {
    let (block, limit) = (u64::try_from(block).ok()?, u64::try_from(limit).ok()?);
    let extent_end = extent.file_offset().checked_add(extent.len())?;
    let end = range.end.min(extent_end);
    if range.start < extent.file_offset() || range.start >= end {
        return None;
    }
    let position = extent
        .offset()
        .checked_add(range.start - extent.file_offset())?;
    let skipped = position.checked_rem(block)?;
    let wanted_end = (skipped + (end - range.start)).min(limit / block * block);
    if wanted_end <= skipped {
        return None;
    }
    Some(Piece {
        sector: (position - skipped) / SECTOR,
        length: usize::try_from(wanted_end.next_multiple_of(block)).ok()?,
        wanted: usize::try_from(skipped).ok()?..usize::try_from(wanted_end).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent() -> Extent {
        Extent::new(8 * SECTOR, 10_000).with_file_offset(4096)
    }

    #[test]
    fn a_piece_covers_whole_sectors_and_names_the_wanted_bytes() {
        let piece = first_piece(&extent(), &(4096 + 700..4096 + 900), 512, 65536).unwrap();
        assert_eq!(
            piece,
            Piece {
                sector: 9,
                length: 512,
                wanted: 188..388
            }
        );
    }

    #[test]
    fn a_piece_ends_at_the_limit_and_the_next_one_starts_at_a_sector() {
        let piece = first_piece(&extent(), &(4096 + 100..14_096), 512, 4096).unwrap();
        assert_eq!(
            piece,
            Piece {
                sector: 8,
                length: 4096,
                wanted: 100..4096
            }
        );
        let next = first_piece(&extent(), &(4096 + 4096..14_096), 512, 4096).unwrap();
        assert_eq!(
            next,
            Piece {
                sector: 16,
                length: 4096,
                wanted: 0..4096
            }
        );
    }

    #[test]
    fn a_piece_ends_with_its_extent() {
        let piece = first_piece(&extent(), &(14_000..20_000), 512, 65536).unwrap();
        assert_eq!(piece.wanted.len(), 96);
        assert_eq!(piece.length % 512, 0);
    }

    #[test]
    fn an_extent_that_does_not_hold_the_first_byte_gives_nothing() {
        assert_eq!(first_piece(&extent(), &(0..5000), 512, 65536), None);
        assert_eq!(first_piece(&extent(), &(14_096..15_000), 512, 65536), None);
        assert_eq!(first_piece(&extent(), &(5000..5000), 512, 65536), None);
        let wild = Extent::new(u64::MAX - 100, 10_000);
        assert_eq!(first_piece(&wild, &(5000..6000), 512, 65536), None);
    }

    #[test]
    fn a_disk_with_large_blocks_is_read_in_them() {
        let piece = first_piece(&extent(), &(4096 + 700..4096 + 900), 4096, 65536).unwrap();
        assert_eq!(
            piece,
            Piece {
                sector: 8,
                length: 4096,
                wanted: 700..900
            }
        );
    }

    #[test]
    fn a_limit_below_a_block_gives_nothing() {
        assert_eq!(first_piece(&extent(), &(5000..6000), 4096, 2048), None);
        assert_eq!(first_piece(&extent(), &(5000..6000), 0, 2048), None);
    }
}
