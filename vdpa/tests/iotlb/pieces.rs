//! Accesses that go over several mappings.

use vdpa::iotlb::{Capacity, Fault, Permission, Piece};

use crate::{Place, RW, range, table};

const READ: Permission = Permission::READ;
const WRITE: Permission = Permission::WRITE;

fn piece(first: u64, last: u64, place: u64) -> Piece<Place> {
    Piece {
        range: range(first, last),
        target: Place(place),
    }
}

#[test]
fn a_span_over_three_mappings_comes_in_three_pieces() {
    let table = table(
        Capacity::Unlimited,
        &[(0, 9, RW), (10, 19, READ), (20, 29, RW)],
    );
    let pieces: Result<Vec<_>, _> = table.pieces(range(5, 24), READ).collect();
    assert_eq!(
        pieces.unwrap(),
        [piece(5, 9, 5), piece(10, 19, 100), piece(20, 24, 200)]
    );
}

#[test]
fn a_hole_in_the_middle_is_found_at_its_place_and_ends_the_walk() {
    let table = table(Capacity::Unlimited, &[(0, 9, RW), (20, 29, RW)]);
    let pieces: Vec<_> = table.pieces(range(0, 29), READ).collect();
    assert_eq!(pieces, [Ok(piece(0, 9, 0)), Err(Fault::NoMapping(10))]);
}

#[test]
fn a_hole_at_an_end_is_found_at_its_place() {
    let table = table(Capacity::Unlimited, &[(10, 19, RW)]);
    let before: Vec<_> = table.pieces(range(9, 19), READ).collect();
    assert_eq!(before, [Err(Fault::NoMapping(9))]);
    let after: Vec<_> = table.pieces(range(10, 20), READ).collect();
    assert_eq!(after, [Ok(piece(10, 19, 100)), Err(Fault::NoMapping(20))]);
}

#[test]
fn a_missing_permission_in_the_middle_is_found_at_its_place() {
    let table = table(
        Capacity::Unlimited,
        &[(0, 9, RW), (10, 19, READ), (20, 29, RW)],
    );
    let write: Vec<_> = table.pieces(range(0, 29), WRITE).collect();
    assert_eq!(write, [Ok(piece(0, 9, 0)), Err(Fault::Permission(10))]);
    let both: Vec<_> = table.pieces(range(10, 10), RW).collect();
    assert_eq!(both, [Err(Fault::Permission(10))]);
}

#[test]
fn an_access_can_end_at_the_last_address() {
    let mut table = table(Capacity::Unlimited, &[]);
    let half = 1 << 63;
    table.map(range(0, half - 1), RW, Place(0)).unwrap();
    table.map(range(half, u64::MAX), RW, Place(7)).unwrap();
    let pieces: Result<Vec<_>, _> = table.pieces(range(0, u64::MAX), RW).collect();
    assert_eq!(
        pieces.unwrap(),
        [piece(0, half - 1, 0), piece(half, u64::MAX, 7)]
    );
}
