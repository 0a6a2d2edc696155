//! Who translates the addresses that a device uses, and how such a device is told.

use core::fmt;

use crate::backing::Backing;
use crate::error::OpError;
use crate::iotlb::{Iotlb, IovaRange, Permission};

/// Who translates the addresses that the device uses.
#[derive(Clone, Copy)]
pub enum DmaModel<'a> {
    /// The platform: its IOMMU, or nobody. The device uses the platform's addresses.
    Platform,
    /// The device, which is told of each change.
    Incremental(&'a dyn IncrementalMap),
    /// The device, which is given each address space as a whole.
    Whole(&'a dyn WholeMap),
}

impl fmt::Debug for DmaModel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Platform => "Platform",
            Self::Incremental(_) => "Incremental",
            Self::Whole(_) => "Whole",
        })
    }
}

/// The translation of a device that takes changes one by one.
///
/// Changes are plain calls, because memory is allocated where nobody can wait; a device that needs
/// time queues them. [`settle`](super::VdpaOps::settle) waits until they hold.
pub trait IncrementalMap: Send + Sync {
    /// Lets the device reach `backing` at `range` in an address space. The range lies inside
    /// [`VdpaOps::iova_range`](super::VdpaOps::iova_range) and inside the memory, and overlaps no other of the address space.
    ///
    /// # Errors
    /// [`OpError::OutOfResources`], if the device can hold no more mappings: nothing has changed.
    fn map(
        &self,
        space: u16,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError>;

    /// Takes a range away from the device. Mappings that reach beyond it keep the rest.
    ///
    /// # Errors
    /// [`OpError::OutOfResources`], if a mapping would have to be split and there is no room:
    /// nothing has changed.
    fn unmap(&self, space: u16, range: IovaRange) -> Result<(), OpError>;
}

/// The translation of a device that takes an address space as a whole. As for [`IncrementalMap`],
/// the call may return before the change holds.
pub trait WholeMap: Send + Sync {
    /// Replaces everything that is mapped in an address space.
    ///
    /// # Errors
    /// [`OpError::OutOfResources`], if the device cannot hold so many mappings: nothing has
    /// changed.
    fn set_map(&self, space: u16, table: &Iotlb<Backing>) -> Result<(), OpError>;
}
