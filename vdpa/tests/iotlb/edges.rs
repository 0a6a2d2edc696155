//! Ranges that touch each other, cut each other, or reach to the last address.

use vdpa::iotlb::{Capacity, Fault, Iotlb, IovaRange, MapError, Permission};

use crate::{Place, RW, contents, range, table};

const READ: Permission = Permission::READ;

#[test]
fn an_overlap_is_refused_wherever_it_is_and_changes_nothing() {
    let mut table = table(Capacity::Unlimited, &[(100, 199, RW), (300, 399, RW)]);
    let before = (contents(&table), table.generation());
    for (first, last) in [
        (100, 199),
        (150, 150),
        (199, 250),
        (0, 100),
        (0, 1000),
        (250, 300),
        (0, u64::MAX),
    ] {
        assert_eq!(
            table.map(range(first, last), RW, Place(0)),
            Err(MapError::Overlap),
            "{first}..={last}"
        );
    }
    assert_eq!((contents(&table), table.generation()), before);
    table.map(range(200, 299), RW, Place(0)).unwrap();
    assert_eq!(table.len(), 3);
}

#[test]
fn a_mapping_that_permits_nothing_is_refused() {
    let mut table = Iotlb::new(Capacity::Unlimited);
    assert_eq!(
        table.map(range(0, 9), Permission::empty(), Place(0)),
        Err(MapError::NoPermission)
    );
    assert_eq!(table.generation(), 0);
}

#[test]
fn unmap_keeps_both_ends_of_a_mapping_with_their_targets() {
    let mut table = table(Capacity::Unlimited, &[(100, 199, READ)]);
    assert_eq!(table.unmap(range(120, 149)), Ok(30));
    assert_eq!(
        contents(&table),
        [(100, 119, READ, 1000), (150, 199, READ, 1050)]
    );
}

#[test]
fn unmap_cuts_the_outer_mappings_and_takes_those_between() {
    let mut table = table(
        Capacity::Unlimited,
        &[(0, 9, RW), (10, 19, READ), (30, 39, RW), (40, 49, RW)],
    );
    assert_eq!(table.unmap(range(5, 44)), Ok(5 + 10 + 10 + 5));
    assert_eq!(contents(&table), [(0, 4, RW, 0), (45, 49, RW, 405)]);
}

#[test]
fn unmap_of_what_is_not_mapped_is_no_change() {
    let mut table = table(Capacity::Unlimited, &[(10, 19, RW)]);
    let generation = table.generation();
    assert_eq!(table.unmap(range(20, u64::MAX)), Ok(0));
    assert_eq!(table.unmap(range(0, 9)), Ok(0));
    assert_eq!(table.generation(), generation);
}

#[test]
fn all_addresses_are_one_mapping() {
    let mut table = table(Capacity::Refuse(1), &[(0, u64::MAX, RW)]);
    assert_eq!(contents(&table), [(0, u64::MAX, RW, 0)]);
    for addr in [0, 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(
            table.translate(addr, RW).unwrap().range,
            IovaRange::ALL,
            "{addr:#x}"
        );
    }
    assert_eq!(
        table.map(range(u64::MAX, u64::MAX), RW, Place(0)),
        Err(MapError::Overlap)
    );
    assert_eq!(table.unmap(IovaRange::ALL), Ok(1 << 64));
    assert!(table.is_empty());
}

#[test]
fn the_first_and_the_last_address_can_be_cut_off() {
    let mut table = table(Capacity::Unlimited, &[(0, u64::MAX, RW)]);
    assert_eq!(table.unmap(range(0, 0)), Ok(1));
    assert_eq!(table.unmap(range(u64::MAX, u64::MAX)), Ok(1));
    assert_eq!(contents(&table), [(1, u64::MAX - 1, RW, 1)]);
    assert_eq!(
        table.translate(u64::MAX, RW),
        Err(Fault::NoMapping(u64::MAX))
    );
    table
        .map(range(u64::MAX, u64::MAX), READ, Place(7))
        .unwrap();
    assert_eq!(table.translate(u64::MAX, READ).unwrap().target, &Place(7));
}

#[test]
fn overlaps_are_walked_in_order_from_the_first_that_reaches_into_the_range() {
    let table = table(
        Capacity::Unlimited,
        &[(40, 49, RW), (0, 9, RW), (20, 29, RW)],
    );
    let firsts = |first, last| -> Vec<u64> {
        let overlaps = table.overlaps(range(first, last));
        overlaps.map(|mapping| mapping.range.first()).collect()
    };
    assert_eq!(firsts(9, 40), [0, 20, 40]);
    assert_eq!(firsts(10, 19), []);
    assert_eq!(firsts(25, 26), [20]);
    assert_eq!(firsts(50, u64::MAX), []);
    assert_eq!(firsts(0, u64::MAX), [0, 20, 40]);
}

#[test]
fn the_generation_grows_with_each_change() {
    let mut table = table(Capacity::Unlimited, &[(0, 99, RW)]);
    let mut last = table.generation();
    let mut grown = |table: &Iotlb<Place>, what: &str| {
        assert!(table.generation() > last, "{what}");
        last = table.generation();
    };
    table.unmap(range(50, 59)).unwrap();
    grown(&table, "a hole");
    table.unmap(range(90, 99)).unwrap();
    grown(&table, "an end");
    table.map(range(90, 99), RW, Place(0)).unwrap();
    grown(&table, "a mapping");
    table.clear();
    grown(&table, "nothing left");
    assert!(table.is_empty());
    table.clear();
    assert_eq!(table.generation(), last);
}
