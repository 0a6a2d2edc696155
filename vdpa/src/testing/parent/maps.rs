//! What the fake device has been told to map.

use alloc::vec::Vec;

use spin::Mutex;

use crate::iotlb::{Capacity, Iotlb, IovaRange, Permission};
use crate::ops::{Backing, OpError};

/// A table for each address space.
pub(super) struct Maps(Mutex<Vec<Iotlb<Backing>>>);

impl Maps {
    pub(super) fn new(spaces: u16) -> Self {
        let tables = (0..spaces).map(|_| Iotlb::new(Capacity::Unlimited));
        Self(Mutex::new(tables.collect()))
    }

    pub(super) fn map(
        &self,
        space: u16,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        self.0.lock()[usize::from(space)]
            .map(range, permission, backing)
            .map_err(|_| OpError::Overlap)
    }

    pub(super) fn unmap(&self, space: u16, range: IovaRange) -> Result<(), OpError> {
        self.0.lock()[usize::from(space)]
            .unmap(range)
            .map(|_| ())
            .map_err(|_| OpError::OutOfResources)
    }

    pub(super) fn replace(&self, space: u16, table: &Iotlb<Backing>) {
        self.0.lock()[usize::from(space)] = table.clone();
    }

    pub(super) fn clear(&self, space: u16) {
        self.0.lock()[usize::from(space)].clear();
    }

    pub(super) fn clear_all(&self) {
        self.0.lock().iter_mut().for_each(Iotlb::clear);
    }

    pub(super) fn list(&self, space: u16) -> Vec<(IovaRange, Permission)> {
        self.0.lock()[usize::from(space)]
            .overlaps(IovaRange::ALL)
            .map(|mapping| (mapping.range, mapping.permission))
            .collect()
    }
}
