//! Which memory is free: the usable regions of the memory map without what is taken.

use core::ops::Range;

use heapless::Vec;

/// The size of a small page in bytes.
pub(crate) const PAGE_SIZE: u64 = 4096;
/// The most free regions that are used. More than a few come from a strange firmware, and their
/// smallest are left alone.
pub(crate) const MAX_FREE: usize = 16;
/// A free region that is smaller is not worth its place, in bytes.
const MIN_SIZE: u64 = 64 << 10;

/// The pages in `usable` that are not even in part in `taken`, as sorted regions that neither
/// overlap nor touch. Either list may be in any order and may overlap itself.
pub(crate) fn free_regions(
    usable: impl Iterator<Item = Range<u64>>,
    taken: &(impl Iterator<Item = Range<u64>> + Clone),
) -> Vec<Range<u64>, MAX_FREE> {
    let mut free: Vec<Range<u64>, MAX_FREE> = Vec::new();
    for region in usable {
        let mut rest = page_round_in(&region);
        while let Some(piece) = first_piece(&rest, taken.clone().chain(free.iter().cloned())) {
            rest.start = piece.end;
            if piece.end - piece.start >= MIN_SIZE {
                insert(&mut free, piece);
            }
        }
    }
    join_neighbours(&mut free);
    free
}

/// The first part of `region` that is not in `taken`.
fn first_piece(
    region: &Range<u64>,
    taken: impl Iterator<Item = Range<u64>> + Clone,
) -> Option<Range<u64>> {
    let mut start = region.start;
    // Each pass leaves at least one of the taken ranges behind.
    while let Some(next) = taken
        .clone()
        .map(|range| page_round_out(&range))
        .find(|range| range.contains(&start))
    {
        start = next.end;
    }
    let end = taken
        .map(|range| page_round_out(&range))
        .filter(|range| range.start > start && !range.is_empty())
        .map(|range| range.start)
        .min()
        .map_or(region.end, |next| next.min(region.end));
    (start < end).then_some(start..end)
}

/// Inserts in order; if there is no room, the smallest region goes.
fn insert(free: &mut Vec<Range<u64>, MAX_FREE>, piece: Range<u64>) {
    if free.is_full() {
        let size = |range: &Range<u64>| range.end - range.start;
        let smallest = (0..free.len()).min_by_key(|index| size(&free[*index]));
        match smallest {
            Some(index) if size(&free[index]) < size(&piece) => drop(free.remove(index)),
            _ => return,
        }
    }
    let index = free.partition_point(|range| range.start < piece.start);
    free.insert(index, piece).expect("room was made above");
}

fn join_neighbours(free: &mut Vec<Range<u64>, MAX_FREE>) {
    let mut index = 1;
    while index < free.len() {
        if free[index - 1].end == free[index].start {
            free[index - 1].end = free[index].end;
            free.remove(index);
        } else {
            index += 1;
        }
    }
}

/// The whole pages inside `range`.
fn page_round_in(range: &Range<u64>) -> Range<u64> {
    let start = range
        .start
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX);
    start..range.end - range.end % PAGE_SIZE
}

/// The pages that `range` touches.
fn page_round_out(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    let end = range
        .end
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX);
    range.start - range.start % PAGE_SIZE..end
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn free(usable: &[Range<u64>], taken: &[Range<u64>]) -> std::vec::Vec<Range<u64>> {
        free_regions(usable.iter().cloned(), &taken.iter().cloned())
            .into_iter()
            .collect()
    }

    #[test]
    fn taken_ranges_are_cut_out() {
        let usable = [0..640 << 10, MIB..128 * MIB, 4096 * MIB..8192 * MIB];
        let taken = [0..MIB, MIB..2 * MIB + 5, 100 * MIB + 1..100 * MIB + 2];
        assert_eq!(
            free(&usable, &taken),
            [
                2 * MIB + PAGE_SIZE..100 * MIB,
                100 * MIB + PAGE_SIZE..128 * MIB,
                4096 * MIB..8192 * MIB
            ]
        );
    }

    #[test]
    fn only_whole_pages_are_free() {
        assert_eq!(
            free(&[MIB + 1..2 * MIB - 1], &[]),
            [MIB + PAGE_SIZE..2 * MIB - PAGE_SIZE]
        );
        assert_eq!(free(&[MIB + 1..MIB + PAGE_SIZE], &[]), []);
    }

    #[test]
    fn small_pieces_are_left_alone() {
        assert_eq!(free(&[MIB..MIB + MIN_SIZE - PAGE_SIZE], &[]), []);
        assert_eq!(free(&[MIB..MIB + MIN_SIZE], &[]), [MIB..MIB + MIN_SIZE]);
    }

    #[test]
    fn overlapping_and_unordered_entries_are_free_once() {
        let usable = [8 * MIB..16 * MIB, 4 * MIB..12 * MIB, 5 * MIB..6 * MIB];
        assert_eq!(free(&usable, &[]), [4 * MIB..16 * MIB]);
    }

    #[test]
    fn reserved_wins_over_usable() {
        assert_eq!(free(&[MIB..16 * MIB], &[0..u64::MAX]), []);
        assert_eq!(
            free(&[MIB..16 * MIB], &[16 * MIB..16 * MIB, 2 * MIB..2 * MIB]),
            [MIB..16 * MIB]
        );
    }

    #[test]
    fn the_end_of_the_address_space_does_not_overflow() {
        let top = u64::MAX - u64::MAX % PAGE_SIZE;
        assert_eq!(free(&[top - MIB..u64::MAX], &[]), [top - MIB..top]);
        assert_eq!(
            free(&[u64::MAX - 1..u64::MAX], &[u64::MAX - 1..u64::MAX]),
            []
        );
    }

    #[test]
    fn of_too_many_regions_the_largest_stay() {
        let usable: std::vec::Vec<_> = (1..40_u64)
            .map(|n| n * 64 * MIB..n * 64 * MIB + n * MIB)
            .collect();
        let free = free(&usable, &[]);
        assert_eq!(free.len(), MAX_FREE);
        assert_eq!(free, usable[usable.len() - MAX_FREE..]);
    }
}
