//! Which bytes of a request have come.

use alloc::vec::Vec;
use core::ops::Range;

/// Ranges that do not touch, in order. A server that needs more of them than this at once is
/// answered as one that errs.
const COUNT_MAX: usize = 256;

/// The bytes of a request that have come.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<Range<u32>>);

impl Ranges {
    /// Adds bytes. False, if some of them are there already, or there are too many gaps.
    pub(crate) fn add(&mut self, range: Range<u32>) -> bool {
        if range.is_empty() {
            return true;
        }
        let place = self.0.partition_point(|other| other.end < range.start);
        // From here on they touch it, overlap it, or come behind it.
        let mut joined = range.clone();
        let mut last = place;
        while let Some(other) = self.0.get(last).filter(|other| other.start <= range.end) {
            if other.start < range.end && range.start < other.end {
                return false;
            }
            joined = joined.start.min(other.start)..joined.end.max(other.end);
            last += 1;
        }
        self.0.splice(place..last, [joined]);
        self.0.len() <= COUNT_MAX
    }

    /// Whether they are all of the first `len` bytes.
    pub(crate) fn cover(&self, len: u32) -> bool {
        len == 0 || matches!(self.0.as_slice(), [all] if *all == (0..len))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_in_any_order() {
        let mut ranges = Ranges::default();
        for range in [8..12, 0..4, 12..16, 20..24, 4..8, 16..20] {
            assert!(!ranges.cover(24));
            assert!(ranges.add(range));
        }
        assert!(ranges.cover(24));
        assert!(!ranges.cover(20));
    }

    #[test]
    fn a_byte_that_comes_twice_is_noticed() {
        for twice in [0..1, 3..5, 7..9, 0..12, 9..10, 11..30] {
            let mut ranges = Ranges::default();
            assert!(ranges.add(0..4) && ranges.add(8..12));
            assert!(!ranges.add(twice.clone()), "{twice:?}");
        }
    }

    #[test]
    fn gaps_are_bounded() {
        let mut ranges = Ranges::default();
        let most = (0u32..).position(|at| !ranges.add(at * 2..at * 2 + 1));
        assert_eq!(most, Some(COUNT_MAX));
    }
}
