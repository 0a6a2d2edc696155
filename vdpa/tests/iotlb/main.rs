//! The IOTLB, alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edges;
mod limits;
mod model;
mod no_alloc;
mod pieces;
mod property;

use vdpa::iotlb::{Capacity, Iotlb, IovaRange, Permission, Target};

/// A place in something that has only addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

impl Target for Place {
    fn advance(&self, by: u64) -> Self {
        Self(self.0.wrapping_add(by))
    }
}

/// Everything that can be permitted.
pub const RW: Permission = Permission::all();

/// The addresses from `first` to `last`.
pub fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::from_bounds(first, last).unwrap()
}

/// A table with these mappings, each to the place of its own addresses times ten.
pub fn table(capacity: Capacity, mappings: &[(u64, u64, Permission)]) -> Iotlb<Place> {
    let mut table = Iotlb::new(capacity);
    for &(first, last, permission) in mappings {
        table
            .map(range(first, last), permission, Place(first * 10))
            .unwrap();
    }
    table
}

/// What is mapped, in order.
pub fn contents(table: &Iotlb<Place>) -> Vec<(u64, u64, Permission, u64)> {
    let mappings = table.iter();
    mappings
        .map(|mapping| {
            let range = mapping.range;
            (
                range.first(),
                range.last(),
                mapping.permission,
                mapping.target.0,
            )
        })
        .collect()
}
