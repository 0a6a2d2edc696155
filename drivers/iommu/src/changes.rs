//! Changes of a domain, before they are made.

use vdpa::dma::IovaSpace;
use vdpa::iotlb::IovaRange;
use vdpa::platform::DomainChange;

/// Whether both map, or both unmap.
pub(crate) fn is_same_kind(change: &DomainChange, next: &DomainChange) -> bool {
    matches!(change, DomainChange::Map { .. }) == matches!(next, DomainChange::Map { .. })
}

/// Takes a range away, but nothing of what is `kept`.
pub(crate) fn unmap_outside(
    range: IovaRange,
    kept: &[IovaRange],
) -> impl Iterator<Item = DomainChange> {
    let rest = IovaSpace::new(&[range], kept);
    let rest = rest.map_or_else(alloc::vec::Vec::new, |space| space.ranges().to_vec());
    rest.into_iter().map(DomainChange::Unmap)
}
