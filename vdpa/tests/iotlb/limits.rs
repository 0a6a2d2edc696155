//! Tables that hold so many mappings and no more.

use vdpa::iotlb::{Capacity, Full, MapError, Permission};

use crate::{Place, RW, contents, range, table};

#[test]
fn a_full_table_refuses_another_mapping_and_takes_one_when_there_is_room() {
    let mut table = table(Capacity::Refuse(2), &[(0, 9, RW), (10, 19, RW)]);
    let generation = table.generation();
    assert_eq!(
        table.map(range(20, 29), RW, Place(0)),
        Err(MapError::Full(Full))
    );
    assert_eq!(table.generation(), generation);
    table.unmap(range(0, 9)).unwrap();
    table.map(range(20, 29), RW, Place(0)).unwrap();
}

#[test]
fn an_overlap_is_told_before_a_full_table_is() {
    let mut table = table(Capacity::Refuse(1), &[(0, 9, RW)]);
    assert_eq!(table.map(range(5, 5), RW, Place(0)), Err(MapError::Overlap));
}

#[test]
fn a_full_table_is_not_split_and_does_not_change() {
    let mut table = table(Capacity::Refuse(2), &[(0, 99, RW), (100, 199, RW)]);
    let before = (contents(&table), table.generation());
    assert_eq!(table.unmap(range(10, 19)), Err(Full));
    assert_eq!((contents(&table), table.generation()), before);
    // What needs no other mapping is possible.
    assert_eq!(table.unmap(range(50, 149)), Ok(100));
    assert_eq!(table.unmap(range(40, 49)), Ok(10));
    assert_eq!(contents(&table), [(0, 39, RW, 0), (150, 199, RW, 1050)]);
}

#[test]
fn a_table_for_nothing_holds_nothing() {
    let mut table = table(Capacity::Refuse(0), &[]);
    assert_eq!(
        table.map(range(0, 0), Permission::READ, Place(0)),
        Err(MapError::Full(Full))
    );
}
