//! The I/O virtual addresses that a device can use: ranges, between which others are reserved.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::iotlb::IovaRange;

/// The addresses at which memory can be mapped for a device; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IovaSpace {
    /// In order; they neither overlap nor touch.
    ranges: Arc<[IovaRange]>,
    hull: IovaRange,
}

impl IovaSpace {
    /// The addresses that are in one of `ranges`, which may overlap, and not in `reserved`. `None`,
    /// if nothing is left.
    #[must_use]
    pub fn new(ranges: &[IovaRange], reserved: &[IovaRange]) -> Option<Self> {
        let mut ranges = join(ranges);
        for hole in reserved {
            ranges = ranges
                .into_iter()
                .flat_map(|range| without(range, *hole))
                .collect();
        }
        let (first, last) = (ranges.first()?.first(), ranges.last()?.last());
        Some(Self {
            hull: IovaRange::from_bounds(first, last).ok()?,
            ranges: ranges.into(),
        })
    }

    /// The ranges, in order. They neither overlap nor touch.
    #[must_use]
    pub fn ranges(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// From the first address to the last, with what is reserved between them.
    #[must_use]
    pub const fn hull(&self) -> IovaRange {
        self.hull
    }

    /// Whether memory can be mapped at all of `range`.
    #[must_use]
    pub fn contains(&self, range: IovaRange) -> bool {
        self.ranges.iter().any(|own| own.contains(range))
    }
}

impl From<IovaRange> for IovaSpace {
    fn from(range: IovaRange) -> Self {
        Self {
            ranges: Arc::new([range]),
            hull: range,
        }
    }
}

/// The same addresses in ranges that neither overlap nor touch, in order.
fn join(ranges: &[IovaRange]) -> Vec<IovaRange> {
    let mut sorted: Vec<IovaRange> = Vec::new();
    for range in ranges {
        let place = sorted.partition_point(|other| other.first() <= range.first());
        sorted.insert(place, *range);
    }
    let mut joined: Vec<IovaRange> = Vec::new();
    for range in sorted {
        let before = joined.pop_if(|before| {
            let next = before.last().checked_add(1);
            next.is_none_or(|next| range.first() <= next)
        });
        let first = before.map_or(range.first(), |before| before.first());
        let last = before.map_or(range.last(), |before| before.last().max(range.last()));
        joined.extend(IovaRange::from_bounds(first, last));
    }
    joined
}

/// What is left of a range below and above a hole.
fn without(range: IovaRange, hole: IovaRange) -> impl Iterator<Item = IovaRange> {
    let below = hole.first().checked_sub(1);
    let above = hole.last().checked_add(1);
    let below = below.map(|last| (range.first(), last.min(range.last())));
    let above = above.map(|first| (first.max(range.first()), range.last()));
    [below, above]
        .into_iter()
        .flatten()
        .filter_map(|(first, last)| IovaRange::from_bounds(first, last).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::from_bounds(first, last).unwrap()
    }

    #[test]
    fn reserved_addresses_are_cut_out_of_ranges_that_are_joined() {
        let ranges = [range(50, 79), range(0, 9), range(10, 29), range(20, 24)];
        let space = IovaSpace::new(&ranges, &[]).unwrap();
        assert_eq!(space.ranges(), [range(0, 29), range(50, 79)]);
        assert_eq!(space.hull(), range(0, 79));
        let reserved = [range(25, 54), range(0, 0), range(60, 61), range(90, 99)];
        let space = IovaSpace::new(&ranges, &reserved).unwrap();
        assert_eq!(space.ranges(), [range(1, 24), range(55, 59), range(62, 79)]);
        assert!(space.contains(range(62, 79)) && space.contains(range(1, 1)));
        assert!(!space.contains(range(59, 62)) && !space.contains(range(24, 25)));
    }

    #[test]
    fn every_address_can_be_there_or_none() {
        let last = range(u64::MAX, u64::MAX);
        let space = IovaSpace::new(&[IovaRange::ALL, last], &[]).unwrap();
        assert_eq!(space.ranges(), [IovaRange::ALL]);
        assert_eq!(space, IovaRange::ALL.into());
        assert_eq!(IovaSpace::new(&[last], &[IovaRange::ALL]), None);
        assert_eq!(IovaSpace::new(&[], &[]), None);
    }
}
