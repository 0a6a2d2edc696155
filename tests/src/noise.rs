//! Bytes without a pattern that can be made again from a seed.

use guest_tests::disk::{SECTOR_BYTES, fill};

/// `length` pseudo-random bytes.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.next_multiple_of(SECTOR_BYTES)];
    fill(&mut bytes, 0, seed);
    bytes.truncate(length);
    bytes
}
