//! Sets of pages, and how they are taken out of bitmaps.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use vdpa::dirty::{DirtyPages, PAGE_SIZE};
use vdpa::ops::DirtyLog;
use virtq::testing::HeapDma;
use virtq::{AccessError, DmaAddr, DmaAllocator, SharedMemory};

fn memory(len: usize) -> SharedMemory {
    let dma = HeapDma::new() as Arc<dyn DmaAllocator>;
    SharedMemory::new(&dma, len).unwrap()
}

fn set(pages: &[u64]) -> DirtyPages {
    let mut set = DirtyPages::new();
    for page in pages {
        set.insert(DmaAddr(page * PAGE_SIZE), 1);
    }
    set
}

#[test]
fn a_log_covers_an_address_with_the_bits_that_it_needs_and_no_byte_more() {
    let len = |last| DirtyLog::covering(DmaAddr(0), last).len;
    assert_eq!((len(0), len(8 * PAGE_SIZE - 1)), (1, 1));
    assert_eq!(len(8 * PAGE_SIZE), 2);
    assert_eq!(len(u64::MAX), 1 << 49);
}

#[test]
fn bytes_lie_in_the_pages_that_they_touch() {
    let pages = |addr, len| {
        let mut set = DirtyPages::new();
        set.insert(DmaAddr(addr), len);
        set.iter().collect::<Vec<_>>()
    };
    assert_eq!(pages(0x1000, 0), []);
    assert_eq!(pages(0x1000, 0x1000), [1]);
    assert_eq!(pages(0x1fff, 2), [1, 2]);
    assert_eq!(pages(0xfff, 0x1002), [0, 1, 2]);
    let last = u64::MAX / PAGE_SIZE;
    assert_eq!(pages(u64::MAX, 1), [last]);
    // There are no addresses behind the last one.
    assert_eq!(pages(u64::MAX - 0x1000, u64::MAX), [last - 1, last]);
}

#[test]
fn what_is_taken_is_gone_from_the_bitmap_and_nothing_beside_it() {
    let bitmap = memory(2000);
    bitmap.write(0, &[0xff; 2000]).unwrap();
    let mut taken = DirtyPages::new();
    taken.take(&bitmap, 7, 1000).unwrap();
    assert_eq!(taken.len(), 8000);
    assert!(taken.contains(0) && taken.contains(7999) && !taken.contains(8000));
    let mut left = [0; 2000];
    bitmap.read(0, &mut left).unwrap();
    assert_eq!(left[..7], [0xff; 7]);
    assert_eq!(left[7..1007], [0; 1000]);
    assert_eq!(left[1007..], [0xff; 993]);
}

#[test]
fn a_bitmap_that_is_not_there_is_not_taken() {
    let bitmap = memory(16);
    bitmap.set_bits(15, 1).unwrap();
    let mut taken = DirtyPages::new();
    for (offset, len) in [(0, 17), (16, 1), (u64::MAX, 2), (1, u64::MAX)] {
        assert_eq!(
            taken.take(&bitmap, offset, len),
            Err(AccessError::OutOfBounds)
        );
    }
    assert!(taken.is_empty());
    taken.take(&bitmap, 0, 16).unwrap();
    assert_eq!(taken, set(&[120]));
}

#[test]
fn sets_are_shown_as_ranges() {
    assert_eq!(format!("{:?}", set(&[])), "[]");
    let shown = format!("{:?}", set(&[1, 2, 3, 63, 64, 1 << 40]));
    assert_eq!(shown, "[1..=3, 63..=64, 1099511627776..=1099511627776]");
}

/// How many pages the bitmap of the property is for, which Miri looks at for long.
const PAGES: u64 = if cfg!(miri) { 64 } else { 2048 };

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_set_is_what_it_was_made_of(
        rounds in vec((vec(0..PAGES, 0..40), vec(0..2 * PAGES, 0..10)), 1..6),
    ) {
        let bitmap = memory(PAGES as usize / 8);
        let (mut all, mut model) = (DirtyPages::new(), BTreeSet::new());
        for (bits, merged) in rounds {
            for page in &bits {
                bitmap.set_bits(page / 8, 1 << (page % 8)).unwrap();
            }
            let mut taken = DirtyPages::new();
            taken.take(&bitmap, 0, PAGES / 8).unwrap();
            let now: BTreeSet<_> = bits.into_iter().collect();
            prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>(), now.clone());
            prop_assert_eq!(taken.is_empty(), now.is_empty());
            all.merge(&taken);
            all.merge(&set(&merged));
            model.extend(now);
            model.extend(merged);
            prop_assert!(all.iter().eq(model.iter().copied()));
            prop_assert_eq!(all.len(), model.len() as u64);
            prop_assert!((0..2 * PAGES).all(|page| all.contains(page) == model.contains(&page)));
        }
    }
}
