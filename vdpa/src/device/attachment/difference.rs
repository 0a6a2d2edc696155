//! What an IOMMU has to be told, so that a unit reaches one table instead of another.

use alloc::vec::Vec;

use virtq::DmaAddr;

use crate::iotlb::{Iotlb, IovaRange, Mapping};
use crate::ops::{Backing, OpError};
use crate::platform::DomainChange;

use super::platform_addr::platform_addr;

/// The changes that lead from `before` to `after`. What is mapped in both as it was is not touched:
/// a device that runs goes on using it.
pub(super) fn difference(
    before: &Iotlb<Backing>,
    after: &Iotlb<Backing>,
) -> Result<Vec<DomainChange>, OpError> {
    let mut changes = Vec::new();
    for mapping in before.iter() {
        for range in changed(&mapping, after)? {
            changes.push(DomainChange::Unmap(range));
        }
    }
    for mapping in after.iter() {
        for range in changed(&mapping, before)? {
            changes.push(DomainChange::Map {
                range,
                permission: mapping.permission,
                addr: DmaAddr(addr_at(&mapping, range.first())?),
            });
        }
    }
    Ok(changes)
}

/// The parts of a mapping that are not in `other`, or lead elsewhere there.
fn changed(
    mapping: &Mapping<'_, Backing>,
    other: &Iotlb<Backing>,
) -> Result<Vec<IovaRange>, OpError> {
    let mut changed = Vec::new();
    // The first address that has not been compared; none is left behind the last of all.
    let mut from = Some(mapping.range.first());
    for found in other.overlaps(mapping.range) {
        let first = found.range.first().max(mapping.range.first());
        let same = found.permission == mapping.permission
            && addr_at(&found, first)? == addr_at(mapping, first)?;
        if same {
            let gap = from.zip(first.checked_sub(1));
            changed.extend(gap.and_then(|(from, to)| IovaRange::from_bounds(from, to).ok()));
            from = found.range.last().checked_add(1);
        }
    }
    let rest = from.and_then(|from| IovaRange::from_bounds(from, mapping.range.last()).ok());
    changed.extend(rest);
    Ok(changed)
}

/// Where an address of a mapping leads.
fn addr_at(mapping: &Mapping<'_, Backing>, at: u64) -> Result<u64, OpError> {
    let start = platform_addr(mapping.target)?.0;
    Ok(start.wrapping_add(at - mapping.range.first()))
}
