//! What an IOMMU takes a function for: its isolation unit.
//!
//! Without the feature `iommu`, in a kernel that drives none, each function has one of its own.

#[cfg(feature = "iommu")]
mod groups;

use pci_types::PciAddress;

use crate::routing_id::routing_id;

#[cfg(feature = "iommu")]
pub(crate) use groups::{Group, Units};

#[cfg(not(feature = "iommu"))]
pub(crate) use alone::Units;

#[cfg(not(feature = "iommu"))]
mod alone {
    use alloc::sync::Arc;

    use pci_types::PciAddress;
    use vdpa::Node;
    use vdpa::dma::IsolationUnit;

    use crate::device::{PciBus, PciDevice};
    use crate::scan::Function;
    use crate::segment::Segment;

    use super::requester_id;

    /// The units of functions that are new.
    pub(crate) struct Units;

    impl Units {
        pub(crate) fn plan(_: &Arc<Segment>, _: &[Function], _: usize) -> Self {
            Self
        }

        pub(crate) fn plan_virtual(
            _: &PciBus,
            _: &Arc<PciDevice>,
            _: impl Iterator<Item = PciAddress>,
        ) -> Self {
            Self
        }

        /// The unit of a function.
        pub(crate) fn of(
            &self,
            _: usize,
            node: &Arc<Node>,
            address: PciAddress,
        ) -> Arc<IsolationUnit> {
            IsolationUnit::new(node, Some(requester_id(address)), None)
        }
    }
}

/// The segment, and below it what the function's requests carry: bus, device and function.
fn requester_id(address: PciAddress) -> u32 {
    u32::from(address.segment()) << 16 | u32::from(routing_id(address))
}
