//! The domain of an isolation unit that several drivers of the kernel share.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use crate::iotlb::IovaRange;
use crate::platform::{DomainChange, DomainError, IommuDomain};

/// A domain whose mappings have one or several users, as when memory moves from one device of the
/// unit to another. Everything is mapped where the platform has it, in whole blocks.
pub(super) struct SharedDomain {
    domain: Arc<dyn IommuDomain>,
    /// In the order of their addresses.
    blocks: Mutex<Vec<Block>>,
}

/// What is mapped.
#[derive(Clone, Copy)]
struct Block {
    range: IovaRange,
    users: u32,
}

impl SharedDomain {
    pub(super) fn new(domain: Arc<dyn IommuDomain>) -> Self {
        Self {
            domain,
            blocks: Mutex::default(),
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
        let mut blocks = self.blocks.lock();
        let mut new = blocks.clone();
        let mut told = Vec::new();
        for change in changes {
            if count(&mut new, change)? {
                told.push(*change);
            }
        }
        if !told.is_empty() {
            self.domain.change(&told)?;
        }
        *blocks = new;
        Ok(())
    }
}

/// Counts a change, and returns whether the domain must make it.
fn count(blocks: &mut Vec<Block>, change: &DomainChange) -> Result<bool, DomainError> {
    let (DomainChange::Map { range, .. } | DomainChange::Unmap(range)) = change;
    let place = blocks.partition_point(|block| block.range.first() < range.first());
    let block = blocks
        .get_mut(place)
        .filter(|block| block.range.first() == range.first());
    match (change, block) {
        (_, Some(block)) if block.range != *range => Err(DomainError::Misaligned),
        (DomainChange::Map { .. }, Some(block)) => {
            block.users += 1;
            Ok(false)
        }
        (DomainChange::Map { .. }, None) => {
            let (range, users) = (*range, 1);
            blocks.insert(place, Block { range, users });
            Ok(true)
        }
        (DomainChange::Unmap(_), Some(block)) => {
            block.users -= 1;
            let was_last = block.users == 0;
            if was_last {
                blocks.remove(place);
            }
            Ok(was_last)
        }
        (DomainChange::Unmap(_), None) => Err(DomainError::Misaligned),
    }
}
