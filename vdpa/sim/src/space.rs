//! The on-chip IOMMU: the address spaces of a device, as their owner changes them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::iter;

use vdpa::dma::AddressSpace;
use vdpa::iotlb::{Iotlb, IovaRange, Permission};
use vdpa::ops::{Backing, IncrementalMap, OpError, WholeMap};

use super::SimConfig;
use super::bell::Bell;
use super::faults::Plan;
use super::page_log::PageLog;

/// All address spaces of a device. A change that takes something away rings the bell, so that the
/// worker lets go of the memory.
pub(super) struct Spaces {
    spaces: Box<[Arc<AddressSpace>]>,
    log: Arc<PageLog>,
    faults: Plan,
    bell: Arc<Bell>,
}

impl Spaces {
    /// So many empty address spaces, at least one.
    pub(super) fn new(count: u16, config: &SimConfig, bell: &Arc<Bell>) -> Self {
        let space = || Arc::new(AddressSpace::new(config.mappings_max));
        let first = space();
        let log = Arc::new(PageLog::new(&first));
        let others = (1..count).map(|_| space());
        Self {
            spaces: iter::once(first).chain(others).collect(),
            log,
            faults: config.faults(),
            bell: Arc::clone(bell),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.spaces.len()).expect("made from 16 bits")
    }

    /// The address space of this number.
    pub(super) fn get(&self, space: u16) -> Result<&Arc<AddressSpace>, OpError> {
        let space = self.spaces.get(usize::from(space));
        space.ok_or(OpError::OutOfRange)
    }

    /// Where it is noted which pages the device writes, if it is.
    pub(super) fn log(&self) -> &Arc<PageLog> {
        &self.log
    }

    /// Takes everything away from an address space.
    pub(super) fn clear(&self, space: u16) -> Result<(), OpError> {
        self.get(space)?.clear();
        self.bell.ring();
        Ok(())
    }

    fn check_faults(&self) -> Result<(), OpError> {
        if self.faults.takes_map() {
            Err(OpError::OutOfResources)
        } else {
            Ok(())
        }
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
        let space = self.get(space)?;
        self.check_faults()?;
        Ok(space.map(range, permission, backing)?)
    }

    fn unmap(&self, space: u16, range: IovaRange) -> Result<(), OpError> {
        self.get(space)?.unmap(range)?;
        self.bell.ring();
        Ok(())
    }
}

impl WholeMap for Spaces {
    fn set_map(&self, space: u16, table: &Iotlb<Backing>) -> Result<(), OpError> {
        let space = self.get(space)?;
        self.check_faults()?;
        space.replace(table)?;
        self.bell.ring();
        Ok(())
    }
}
