//! What is where on the test disks.
//!
//! The host fills both images before the guest boots and compares every byte of them afterwards,
//! so what the guest reads and writes is checked from both sides.

use core::ops::Range;

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;

/// Size of either disk, in sectors (16 MiB).
pub const SECTORS: u64 = 32768;

/// The identity of the disk that can be written to.
pub const WRITABLE: &str = "ringway-writable";

/// The identity of the disk that cannot.
pub const READ_ONLY: &str = "ringway-read-only";

/// Sectors of the writable disk on which every completed run leaves [`GUEST_SEED`]'s pattern.
pub const WRITTEN: Range<u64> = 2048..2048 + 512;

/// Sectors of the writable disk that a test may leave in any state.
pub const SCRATCH: Range<u64> = 8192..16384;

/// Seed of the pattern that the host writes to all sectors of both disks.
pub const HOST_SEED: u64 = 0x05ee_d0f0_cafe_1105;

/// Seed of the pattern that the guest writes.
pub const GUEST_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills `bytes`, which begin at sector `first`, with the pattern of `seed`. No two sectors and no
/// two seeds have the same bytes.
///
/// # Panics
/// If `bytes` is not a whole number of sectors.
pub fn fill(bytes: &mut [u8], first: u64, seed: u64) {
    assert_eq!(bytes.len() % SECTOR_BYTES, 0, "whole sectors");
    for (index, sector) in (0_u64..).zip(bytes.chunks_exact_mut(SECTOR_BYTES)) {
        let mut state = seed ^ (first + index).wrapping_mul(0xd134_2543_de82_ef95);
        for word in sector.chunks_exact_mut(8) {
            // The step and mix of SplitMix64 (Steele, Lea and Flood, 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
    }
}

/// The first sector of `bytes`, which begin at sector `first`, that does not hold the pattern of
/// `seed`.
#[must_use]
pub fn first_difference(bytes: &[u8], first: u64, seed: u64) -> Option<u64> {
    let mut expected = [0; SECTOR_BYTES];
    (first..)
        .zip(bytes.chunks(SECTOR_BYTES))
        .find_map(|(sector, found)| {
            fill(&mut expected, sector, seed);
            (found != expected).then_some(sector)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_found_where_it_was_put_and_nowhere_else() {
        let mut bytes = [0; 4 * SECTOR_BYTES];
        fill(&mut bytes, 7, HOST_SEED);
        assert_eq!(first_difference(&bytes, 7, HOST_SEED), None);
        assert_eq!(first_difference(&bytes, 8, HOST_SEED), Some(8));
        assert_eq!(first_difference(&bytes, 7, GUEST_SEED), Some(7));
        bytes[2 * SECTOR_BYTES + 511] ^= 1;
        assert_eq!(first_difference(&bytes, 7, HOST_SEED), Some(9));
    }

    #[test]
    fn regions_do_not_overlap_and_lie_on_the_disk() {
        const { assert!(WRITTEN.end <= SCRATCH.start && SCRATCH.end <= SECTORS) };
    }
}
