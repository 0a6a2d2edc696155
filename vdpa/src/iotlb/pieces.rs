//! Where an access leads that goes over several mappings.

use super::{Fault, Iotlb, IovaRange, Overlaps, Permission, Target};

/// One stretch of an access, inside one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// The addresses of the access that it holds.
    pub range: IovaRange,
    /// Where the first of them leads.
    pub target: T,
}

/// The pieces of an access, in the order of their addresses, without a hole between them. After a
/// fault there are no more.
#[derive(Clone, Debug)]
pub struct Pieces<'a, T> {
    mappings: Overlaps<'a, T>,
    /// What is still to be walked; `None` at the end.
    left: Option<IovaRange>,
    permission: Permission,
}

impl<'a, T: Target> Pieces<'a, T> {
    pub(super) fn new(table: &'a Iotlb<T>, range: IovaRange, permission: Permission) -> Self {
        Self {
            mappings: table.overlaps(range),
            left: Some(range),
            permission,
        }
    }
}

impl<T: Target> Iterator for Pieces<'_, T> {
    type Item = Result<Piece<T>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.left.take()?;
        let addr = left.first();
        let mapping = self
            .mappings
            .next()
            .filter(|mapping| mapping.range.first() <= addr);
        let Some(mapping) = mapping else {
            return Some(Err(Fault::NoMapping(addr)));
        };
        if !mapping.permission.contains(self.permission) {
            return Some(Err(Fault::Permission(addr)));
        }
        let last = mapping.range.last().min(left.last());
        if last < left.last() {
            self.left = Some(IovaRange::ordered(last + 1, left.last()));
        }
        Some(Ok(Piece {
            range: IovaRange::ordered(addr, last),
            target: mapping.target.advance(addr - mapping.range.first()),
        }))
    }
}
