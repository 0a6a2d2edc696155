//! Which I/O virtual addresses are free.

use alloc::vec::Vec;

use crate::iotlb::IovaRange;

use super::IovaSpace;

/// What lies free at each side of a block, so that running over its end is a fault.
const GUARD: u64 = 0x1000;

/// What an IOMMU maps at least.
const PAGE: u64 = 0x1000;

/// Where addresses start if the device can use them: beyond the memory of most machines, so that an
/// address of the platform is not taken for one of these.
const START: u64 = 1 << 40;

/// The addresses that are taken. Free ones are handed out in turn, so that one that was given back
/// rests as long as possible.
#[derive(Debug)]
pub(super) struct Iovas {
    /// First and last addresses, in ascending order.
    taken: Vec<(u64, u64)>,
    next: u64,
}

impl Iovas {
    pub(super) const fn new() -> Self {
        Self {
            taken: Vec::new(),
            next: START,
        }
    }

    /// Takes `len` addresses (not zero) of `space` that start at a multiple of `align`, and not at
    /// `shunned`.
    pub(super) fn take(
        &mut self,
        space: &IovaSpace,
        len: u64,
        align: u64,
        shunned: Option<u64>,
    ) -> Option<IovaRange> {
        let align = align.max(PAGE);
        // Address 0 is what a field that nobody has set holds.
        let find = |from: u64| {
            let mut ranges = space.ranges().iter();
            ranges.find_map(|range| {
                let from = range.first().max(from);
                self.find(from, range.last(), len, align, shunned)
            })
        };
        let range = find(self.next.max(PAGE)).or_else(|| find(PAGE))?;
        let place = self.first_from(range.first());
        self.taken.insert(place, (range.first(), range.last()));
        self.next = range.last().saturating_add(1 + GUARD);
        Some(range)
    }

    /// Gives back what starts at `first`.
    pub(super) fn give_back(&mut self, first: u64) {
        let place = self.first_from(first);
        if self.taken.get(place).is_some_and(|taken| taken.0 == first) {
            self.taken.remove(place);
        }
    }

    /// The first free addresses from `from` on.
    fn find(
        &self,
        from: u64,
        last: u64,
        len: u64,
        align: u64,
        shunned: Option<u64>,
    ) -> Option<IovaRange> {
        let mut from = from;
        loop {
            let first = from.checked_next_multiple_of(align)?;
            let range = IovaRange::new(first, len).ok()?;
            if range.last() > last {
                return None;
            }
            from = match self.in_the_way(range) {
                Some(taken) => taken.checked_add(1 + GUARD)?,
                None if Some(first) == shunned => first.checked_add(1)?,
                None => return Some(range),
            };
        }
    }

    /// The last address of a block that is less than a guard away.
    fn in_the_way(&self, range: IovaRange) -> Option<u64> {
        let end = range.last().saturating_add(GUARD);
        let behind = self.taken.partition_point(|(first, _)| *first <= end);
        let (_, last) = self.taken[..behind].last()?;
        (last.saturating_add(GUARD) >= range.first()).then_some(*last)
    }

    /// The place of the first block that starts at or behind an address.
    fn first_from(&self, addr: u64) -> usize {
        self.taken.partition_point(|(first, _)| *first < addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::from_bounds(first, last).unwrap()
    }

    fn window(first: u64, last: u64) -> IovaSpace {
        range(first, last).into()
    }

    #[test]
    fn blocks_stay_apart_and_inside_the_window_until_it_is_full() {
        let mut iovas = Iovas::new();
        let window = window(0, 0x5fff);
        let taken: Vec<_> = core::iter::from_fn(|| iovas.take(&window, 0x1000, 16, None)).collect();
        let firsts: Vec<_> = taken.iter().map(IovaRange::first).collect();
        assert_eq!(firsts, [0x1000, 0x3000, 0x5000]);
        iovas.give_back(0x3000);
        assert_eq!(iovas.take(&window, 0x1001, 16, None), None);
        assert_eq!(
            iovas.take(&window, 0x800, 16, None),
            Some(range(0x3000, 0x37ff))
        );
    }

    #[test]
    fn an_address_that_was_given_back_rests_while_there_are_others() {
        let mut iovas = Iovas::new();
        let all = IovaRange::ALL.into();
        let first = iovas.take(&all, 64, 16, None).unwrap();
        iovas.give_back(first.first());
        let second = iovas.take(&all, 64, 16, None).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn the_shunned_address_is_passed_over_and_alignment_kept() {
        let mut iovas = Iovas::new();
        let window = window(0x1_0000, 0xf_ffff);
        let range = iovas.take(&window, 1, 0x1_0000, Some(0x1_0000)).unwrap();
        assert_eq!(range.first(), 0x2_0000);
    }

    #[test]
    fn the_last_addresses_of_all_can_be_taken() {
        let mut iovas = Iovas::new();
        let top = window(u64::MAX - 0xfff, u64::MAX);
        let taken = iovas.take(&top, 0x1000, 16, None);
        assert_eq!(taken, Some(range(u64::MAX - 0xfff, u64::MAX)));
        assert_eq!(iovas.take(&top, 0x1000, 16, None), None);
    }
}
