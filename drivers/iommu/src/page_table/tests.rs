use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use vdpa::iotlb::{Capacity, Iotlb, IovaRange, Permission};
use vdpa::platform::DomainChange;
use vdpa::testing::FakePlatform;
use virtq::DmaAddr;
use virtq::testing::HeapDma;

use super::{ENTRIES, Format, PAGE, PageTable, TableError, span};
use crate::hardware_table::{Coherence, TableSource};

const LEVEL_SHIFT: u32 = 9;
const TABLE: u64 = 1 << 11;
const ADDR: u64 = 0x000f_ffff_ffff_f000;

/// Entries that say at which level they stand: one that is walked elsewhere is noticed.
#[derive(Debug)]
struct Checked {
    largest_page: u32,
    /// How many pages were ever mapped.
    mapped: AtomicUsize,
}

impl Format for Checked {
    fn largest_page(&self) -> u32 {
        self.largest_page
    }

    fn page(&self, addr: DmaAddr, permission: Permission, level: u32) -> u64 {
        assert!(level <= self.largest_page && addr.0.is_multiple_of(span(level)));
        self.mapped.fetch_add(1, Ordering::Relaxed);
        addr.0 | u64::from(permission.bits()) | u64::from(level) << (LEVEL_SHIFT - 7)
    }

    fn table(&self, addr: DmaAddr, level: u32) -> u64 {
        addr.0 | TABLE | u64::from(level) << (LEVEL_SHIFT - 7)
    }

    fn read_page(&self, entry: u64, level: u32) -> (DmaAddr, Permission) {
        assert_eq!((entry >> (LEVEL_SHIFT - 7)) & 7, u64::from(level));
        let permission = Permission::from_bits_truncate(entry as u8 & 3);
        (DmaAddr(entry & ADDR), permission)
    }
}

struct Bench {
    heap: Arc<HeapDma>,
    table: PageTable<Checked>,
    levels: u32,
}

impl Bench {
    fn new(levels: u32, largest_page: u32, tables: usize) -> Self {
        let heap = HeapDma::limited(tables * PAGE as usize);
        let platform = FakePlatform::with_heap(Arc::clone(&heap));
        let source = TableSource::new(&*platform, Coherence::NotSnooped);
        let format = Checked {
            largest_page,
            mapped: AtomicUsize::new(0),
        };
        let table = PageTable::new(&source, format, levels, 64).unwrap();
        Self {
            heap,
            table,
            levels,
        }
    }

    /// Walks the tables in memory, as the IOMMU does.
    fn walk(&self, iova: u64) -> Option<(DmaAddr, Permission)> {
        let mut table = self.table.root();
        for level in (1..=self.levels).rev() {
            let mut entry = [0; 8];
            let at = super::index(iova, level) as u64 * 8;
            self.heap.read(DmaAddr(table.0 + at), &mut entry).unwrap();
            let entry = u64::from_le_bytes(entry);
            if entry == 0 {
                return None;
            }
            assert_eq!((entry >> (LEVEL_SHIFT - 7)) & 7, u64::from(level));
            table = DmaAddr(entry & ADDR);
            if entry & TABLE == 0 {
                let permission = Permission::from_bits_truncate(entry as u8 & 3);
                return Some((DmaAddr(table.0 + iova % span(level)), permission));
            }
        }
        panic!("a table below the last level");
    }

    fn tables(&self) -> usize {
        self.heap.outstanding() / PAGE as usize
    }

    fn apply(&mut self, changes: &[DomainChange]) -> Result<(), TableError> {
        match self.table.apply(changes) {
            Ok(edit) => {
                self.table.commit(edit);
                Ok(())
            }
            Err((error, _)) => Err(error),
        }
    }
}

fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::new(first, len).unwrap()
}

fn map(first: u64, len: u64, addr: u64) -> DomainChange {
    DomainChange::Map {
        range: range(first, len),
        permission: Permission::all(),
        addr: DmaAddr(addr),
    }
}

#[test]
fn pages_are_as_large_as_both_addresses_and_the_format_allow() {
    for (largest_page, tables) in [(1, 515), (2, 3), (3, 2)] {
        if cfg!(miri) && largest_page == 1 {
            continue;
        }
        let mut bench = Bench::new(4, largest_page, 1000);
        let first = 5 * span(3);
        bench.apply(&[map(first, span(3), 7 * span(3))]).unwrap();
        // The root, and one table of each level above that of the page.
        let expected = if largest_page == 3 { 2 } else { tables };
        assert_eq!(
            bench.tables(),
            expected.max(2),
            "up to level {largest_page}"
        );
        let (addr, _) = bench.walk(first + 0x12_3456).unwrap();
        assert_eq!(addr.0, 7 * span(3) + 0x12_3456);
    }
    // A page more, or memory that is not aligned as the address is.
    let mut bench = Bench::new(4, 3, 1000);
    bench
        .apply(&[map(span(2), span(2) + PAGE, 4 * span(2))])
        .unwrap();
    assert_eq!(bench.tables(), 4);
    bench.apply(&[map(span(3), span(2), PAGE)]).unwrap();
    assert_eq!(bench.tables(), 6);
}

#[test]
fn tables_that_have_become_empty_are_freed_with_the_commit_and_not_before() {
    let mut bench = Bench::new(3, 1, 100);
    bench.apply(&[map(0x1000, 0x3000, 0x9000)]).unwrap();
    assert_eq!(bench.tables(), 3);
    let all = [DomainChange::Unmap(IovaRange::ALL)];
    let edit = bench.table.apply(&all).unwrap();
    assert_eq!((bench.tables(), bench.walk(0x1000)), (3, None));
    assert_eq!(edit.removed(), [range(0x1000, 0x3000)]);
    bench.table.commit(edit);
    assert_eq!((bench.tables(), bench.table.mapped()), (1, 0));
}

#[test]
fn a_large_page_is_split_where_a_part_is_taken_away() {
    let mut bench = Bench::new(4, 3, 100);
    bench.apply(&[map(0, span(3), span(3))]).unwrap();
    let hole = range(span(2) * 3 + PAGE, PAGE);
    let edit = bench.table.apply(&[DomainChange::Unmap(hole)]).unwrap();
    // All of the page has gone that the IOMMU may hold.
    assert_eq!(edit.removed(), [range(0, span(3))]);
    bench.table.commit(edit);
    for iova in [0, hole.first() - 1, hole.last() + 1, span(3) - 1] {
        assert_eq!(bench.walk(iova).unwrap().0.0, span(3) + iova);
    }
    assert_eq!(bench.walk(hole.first()), None);
    assert_eq!(bench.table.mapped(), span(3) - PAGE);
    // Undone, the page is whole again.
    let edit = bench.table.apply(&[DomainChange::Unmap(IovaRange::ALL)]);
    let stale = bench.table.undo(edit.unwrap());
    assert_eq!(stale.ranges.len(), 2);
    assert_eq!(
        bench.walk(hole.last() + 1).unwrap().0.0,
        span(3) + hole.last() + 1
    );
}

#[test]
fn without_memory_for_tables_nothing_has_changed() {
    for tables in 1..6 {
        let mut bench = Bench::new(3, 1, tables);
        let before = bench.tables();
        // Three level-1 tables and one of level 2, in one batch.
        let changes = [map(0x1000, PAGE, 0x5000), map(span(2), 2 * span(2), 0x8000)];
        let result = bench.apply(&changes);
        if tables < 5 {
            assert_eq!(result, Err(TableError::OutOfMemory));
            // Not even for a moment.
            assert_eq!(bench.table.format.mapped.load(Ordering::Relaxed), 0);
            assert_eq!((bench.tables(), bench.walk(0x1000)), (before, None));
            assert_eq!(bench.table.mapped(), 0);
        } else {
            result.unwrap();
        }
    }
    // Nor when a page must be split.
    let mut bench = Bench::new(3, 3, 1);
    bench.apply(&[map(0, span(3), 0)]).unwrap();
    let part = DomainChange::Unmap(range(PAGE, PAGE));
    assert_eq!(bench.apply(&[part]), Err(TableError::OutOfMemory));
    assert!(bench.walk(PAGE).is_some());
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let mut bench = Bench::new(3, 3, 100);
    bench.apply(&[map(span(2), span(2), 0)]).unwrap();
    let last = span(3) * ENTRIES as u64;
    for (change, error) in [
        (map(0x800, PAGE, 0), TableError::Misaligned),
        (map(0, 0x800, 0), TableError::Misaligned),
        (map(0, PAGE, 0x800), TableError::Misaligned),
        (DomainChange::Unmap(range(0, 1)), TableError::Misaligned),
        (map(last - PAGE, 2 * PAGE, 0), TableError::OutOfRange),
        (map(0, 2 * PAGE, (1 << 52) - PAGE), TableError::OutOfRange),
        (map(0, PAGE, u64::MAX - 0xfff), TableError::OutOfRange),
        (map(0, 2 * span(2), 0), TableError::Mapped),
        (map(span(2) + PAGE, PAGE, 0), TableError::Mapped),
        (map(0, span(3), 0), TableError::Mapped),
    ] {
        assert_eq!(bench.apply(&[change]), Err(error), "{change:x?}");
        assert_eq!(bench.walk(0), None);
        assert_eq!(bench.walk(span(2)).unwrap().0.0, 0);
    }
    bench.apply(&[map(last - PAGE, PAGE, 0)]).unwrap();
    assert_eq!(bench.table.translate(last), None);
}

#[derive(Clone, Debug)]
enum Outcome {
    Commit,
    Undo,
}

/// Ranges that meet at the bounds of pages of all sizes, and between them.
fn any_range() -> impl Strategy<Value = (u64, u64)> {
    let place = prop_oneof![
        0..4 * span(3) / span(2),
        prop::sample::select(vec![0, 511, 512, 513, 1024])
    ];
    let pages = prop_oneof![
        4 => 1..20_u64,
        4 => prop::sample::select(vec![511, 512, 513, 1024]),
        u32::from(!cfg!(miri)) => prop::sample::select(vec![512 * 512, 512 * 512 + 1]),
    ];
    (place, -2..3_i64, pages).prop_map(|(place, shift, pages)| {
        let first = (place * span(2)).saturating_add_signed(shift * PAGE as i64);
        (first, pages * PAGE)
    })
}

fn any_change() -> impl Strategy<Value = DomainChange> {
    let addr = prop_oneof![Just(0), Just(PAGE), Just(span(2)), Just(3 * span(3))];
    let map = (any_range(), 1..4_u8, addr).prop_map(|((first, len), permission, shift)| {
        DomainChange::Map {
            range: range(first, len),
            permission: Permission::from_bits_truncate(permission),
            addr: DmaAddr(first + shift),
        }
    });
    let unmap = any_range().prop_map(|(first, len)| DomainChange::Unmap(range(first, len)));
    prop_oneof![3 => map, 2 => unmap]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 32 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever happens, an IOMMU finds what a list of mappings says: all changes of a batch have
    /// been made, or none.
    #[test]
    fn the_tables_say_what_a_list_of_mappings_says(
        largest_page in 1..4_u32,
        tables in prop_oneof![Just(40_usize), Just(4000)],
        batches in prop::collection::vec(
            (
                prop::collection::vec(any_change(), 1..4),
                prop_oneof![4 => Just(Outcome::Commit), 1 => Just(Outcome::Undo)],
            ),
            1..if cfg!(miri) { 3 } else { 16 },
        ),
    ) {
        let largest_page = if cfg!(miri) { 3 } else { largest_page };
        let mut bench = Bench::new(4, largest_page, tables);
        let mut model = Iotlb::new(Capacity::Unlimited);
        let mut seen = Vec::new();
        for (changes, outcome) in batches {
            let before = bench.tables();
            let mapped = bench.table.mapped();
            let changed = change_model(&model, &changes);
            match (bench.table.apply(&changes), outcome) {
                (Ok(edit), Outcome::Commit) => {
                    prop_assert!(changed.is_some(), "two mappings of one address");
                    bench.table.commit(edit);
                    model = changed.unwrap_or(model);
                }
                (Ok(edit), Outcome::Undo) => {
                    let stale = bench.table.undo(edit);
                    drop(stale);
                    prop_assert_eq!((bench.tables(), bench.table.mapped()), (before, mapped));
                }
                (Err((error, stale)), _) => {
                    drop(stale);
                    prop_assert!(changed.is_none() || error == TableError::OutOfMemory);
                    prop_assert_eq!((bench.tables(), bench.table.mapped()), (before, mapped));
                }
            }
            for change in &changes {
                let (DomainChange::Unmap(range) | DomainChange::Map { range, .. }) = change;
                let (first, last) = (range.first(), range.last());
                let middle = first + (last - first) / 2;
                seen.extend([first.saturating_sub(1), first, middle, last, last + 1]);
            }
            for iova in &seen {
                let expected = model.overlaps(range(*iova, 1)).next().map(|mapping| {
                    let addr = mapping.target.0 + (iova - mapping.range.first());
                    (DmaAddr(addr), mapping.permission)
                });
                prop_assert_eq!(bench.walk(*iova), expected, "at {:#x}", iova);
                prop_assert_eq!(bench.table.translate(*iova), expected);
            }
            let bytes: u128 = model.iter().map(|mapping| mapping.range.len()).sum();
            prop_assert_eq!(u128::from(bench.table.mapped()), bytes);
        }
        if bench.apply(&[DomainChange::Unmap(IovaRange::ALL)]).is_ok() {
            prop_assert_eq!(bench.tables(), 1);
        }
    }
}

fn change_model(model: &Iotlb<DmaAddr>, changes: &[DomainChange]) -> Option<Iotlb<DmaAddr>> {
    let mut changed = model.clone();
    for change in changes {
        match *change {
            DomainChange::Map {
                range,
                permission,
                addr,
            } => changed.map(range, permission, addr).ok()?,
            DomainChange::Unmap(range) => {
                changed.unmap(range).unwrap();
            }
        }
    }
    Some(changed)
}
