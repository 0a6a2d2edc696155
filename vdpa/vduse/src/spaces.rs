//! The address spaces of a device, as their owner changes them.

use alloc::boxed::Box;
use alloc::sync::Arc;

use spin::Mutex;
use vdpa::dma::AddressSpace;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, IncrementalMap, OpError};

/// The mappings that an address space can hold.
const MAPPINGS_MAX: usize = 2048;

/// One address space.
struct Space {
    table: Arc<AddressSpace>,
    /// What was taken away since the task was last told, from the first address to the last.
    withdrawn: Mutex<Option<IovaRange>>,
}

/// All of a device.
pub(super) struct Spaces(Box<[Space]>);

impl Spaces {
    /// So many empty ones.
    pub(super) fn new(count: u16) -> Self {
        let space = |_| Space {
            table: Arc::new(AddressSpace::new(MAPPINGS_MAX)),
            withdrawn: Mutex::new(None),
        };
        Self((0..count).map(space).collect())
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.0.len()).expect("made from 16 bits")
    }

    /// What is mapped in one.
    pub(super) fn get(&self, space: u16) -> Result<&Arc<AddressSpace>, OpError> {
        Ok(&self.find(space)?.table)
    }

    /// Takes everything away from one.
    pub(super) fn clear(&self, space: u16) -> Result<(), OpError> {
        let space = self.find(space)?;
        space.table.clear();
        space.note(IovaRange::ALL);
        Ok(())
    }

    /// What the task has not been told of yet.
    pub(super) fn take_withdrawn(&self, space: u16) -> Option<IovaRange> {
        self.find(space).ok()?.withdrawn.lock().take()
    }

    fn find(&self, space: u16) -> Result<&Space, OpError> {
        self.0.get(usize::from(space)).ok_or(OpError::OutOfRange)
    }
}

impl Space {
    fn note(&self, range: IovaRange) {
        let mut withdrawn = self.withdrawn.lock();
        let (first, last) = withdrawn.map_or((range.first(), range.last()), |earlier| {
            let first = earlier.first().min(range.first());
            (first, earlier.last().max(range.last()))
        });
        *withdrawn = IovaRange::from_bounds(first, last).ok();
    }
}

impl IncrementalMap for Spaces {
    fn map(
        &self,
        space: u16,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        Ok(self.get(space)?.map(range, permission, backing)?)
    }

    fn unmap(&self, space: u16, range: IovaRange) -> Result<(), OpError> {
        let space = self.find(space)?;
        space.table.unmap(range)?;
        space.note(range);
        Ok(())
    }
}
