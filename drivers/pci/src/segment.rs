//! One PCI segment as its functions see it: how their registers are reached, and which addresses
//! are there for them.
//!
//! Finding functions is the business of [`enumeration`](super::enumeration).

use alloc::sync::Arc;
#[cfg(feature = "iommu")]
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::ops::Range;

use pci_types::PciAddress;
use spin::Mutex;
use vdpa::Platform;
#[cfg(feature = "iommu")]
use vdpa::dma::IsolationUnit;

use super::access::ConfigAccess;
use super::assign::Windows;
use super::id::PciId;
#[cfg(feature = "iommu")]
use super::isolation::Group;

/// A segment below its host bridge.
pub(super) struct Segment {
    access: Arc<dyn ConfigAccess>,
    platform: Arc<dyn Platform>,
    windows: Windows,
    /// What comes before all others.
    pub(super) first: &'static [PciId],
    /// Memory of virtual functions, by their physical one. Locked while addresses are given away.
    pub(super) reserved: Mutex<Vec<(PciAddress, Range<u64>)>>,
    /// Isolation units that somebody has, in the order of their groups.
    #[cfg(feature = "iommu")]
    pub(super) units: Mutex<Vec<(Group, Weak<IsolationUnit>)>>,
}

impl Segment {
    pub(super) fn new(
        access: Arc<dyn ConfigAccess>,
        platform: Arc<dyn Platform>,
        windows: Windows,
    ) -> Self {
        Self {
            access,
            platform,
            windows,
            first: &[],
            reserved: Mutex::default(),
            #[cfg(feature = "iommu")]
            units: Mutex::default(),
        }
    }

    /// Gives back what is reserved for the virtual functions of the function at `physical`.
    pub(super) fn release(&self, physical: PciAddress) {
        self.reserved.lock().retain(|(other, _)| *other != physical);
    }

    pub(super) fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    pub(super) fn access(&self) -> &Arc<dyn ConfigAccess> {
        &self.access
    }

    pub(super) fn windows(&self) -> &Windows {
        &self.windows
    }
}
