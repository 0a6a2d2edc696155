//! The domain of an isolation unit that several drivers of the kernel share.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use crate::iotlb::IovaRange;
use crate::platform::{DomainChange, DomainError, IommuDomain};

/// A domain whose mappings have one or several users, as when memory moves from one device of the
/// unit to another. Everything is mapped where the platform has it, in whole blocks.
pub(super) struct SharedDomain {
    domain: Arc<dyn IommuDomain>,
    /// How many users the mapping has that starts at an address.
    users: Mutex<BTreeMap<u64, (IovaRange, usize)>>,
}

impl SharedDomain {
    pub(super) fn new(domain: Arc<dyn IommuDomain>) -> Self {
        Self {
            domain,
            users: Mutex::default(),
        }
    }
}

// SAFETY: what the domain has mapped is what it was told, less what others have still mapped.
unsafe impl IommuDomain for SharedDomain {
    fn iova_ranges(&self) -> Vec<IovaRange> {
        self.domain.iova_ranges()
    }

    fn reserved(&self) -> Vec<IovaRange> {
        self.domain.reserved()
    }

    fn enter(&self) -> Result<(), DomainError> {
        self.domain.enter()
    }

    fn change(&self, changes: &[DomainChange]) -> Result<(), DomainError> {
        let mut users = self.users.lock();
        let (mut done, mut told) = (Vec::new(), Vec::new());
        let mut result = Ok(());
        for change in changes {
            match count(&mut users, change) {
                Ok(Some(change)) => told.push(change),
                Ok(None) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            done.push(*change);
        }
        if result.is_ok() && !told.is_empty() {
            result = self.domain.change(&told);
        }
        if result.is_err() {
            for change in done.iter().rev() {
                uncount(&mut users, change);
            }
        }
        result
    }
}

/// Counts a change, and returns it if the domain must make it.
fn count(
    users: &mut BTreeMap<u64, (IovaRange, usize)>,
    change: &DomainChange,
) -> Result<Option<DomainChange>, DomainError> {
    let range = range_of(change);
    let entry = users.get_mut(&range.first());
    match (change, entry) {
        (_, Some((block, _))) if *block != range => Err(DomainError::Misaligned),
        (DomainChange::Map { .. }, Some((_, users))) => {
            *users += 1;
            Ok(None)
        }
        (DomainChange::Map { .. }, None) => {
            users.insert(range.first(), (range, 1));
            Ok(Some(*change))
        }
        (DomainChange::Unmap(_), Some((_, 1))) => {
            users.remove(&range.first());
            Ok(Some(*change))
        }
        (DomainChange::Unmap(_), Some((_, users))) => {
            *users -= 1;
            Ok(None)
        }
        (DomainChange::Unmap(_), None) => Err(DomainError::Misaligned),
    }
}

/// Undoes a `count`.
fn uncount(users: &mut BTreeMap<u64, (IovaRange, usize)>, change: &DomainChange) {
    let range = range_of(change);
    let entry = users.entry(range.first()).or_insert((range, 0));
    match change {
        DomainChange::Map { .. } => entry.1 -= 1,
        DomainChange::Unmap(_) => entry.1 += 1,
    }
    if entry.1 == 0 {
        users.remove(&range.first());
    }
}

fn range_of(change: &DomainChange) -> IovaRange {
    match change {
        DomainChange::Map { range, .. } | DomainChange::Unmap(range) => *range,
    }
}
