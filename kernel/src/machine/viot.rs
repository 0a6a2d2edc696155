//! Which devices a virtio-iommu stands before, as the table VIOT says.

use alloc::sync::Arc;

use iommu::tables::{Viot, ViotIommu};
use vdpa::Node;
use vdpa::dma::IsolationUnit;
use virtio_iommu::Topology;

use crate::pure::node_name::{Place, place};

/// The table. Of devices that are no PCI functions it is not asked: the kernel cannot tell their
/// requests apart.
#[derive(Debug)]
pub(crate) struct ViotTopology(Viot);

impl ViotTopology {
    /// What the table says, if it names an IOMMU.
    pub(crate) fn new(table: &[u8]) -> Option<Self> {
        match Viot::parse(table) {
            Ok(viot) if viot.iommus.is_empty() => None,
            Ok(viot) => Some(Self(viot)),
            Err(error) => {
                log::error!("VIOT: {error}");
                None
            }
        }
    }

    /// Whether the unit is that of an IOMMU itself, which comes before it translates.
    pub(crate) fn is_iommu(&self, unit: &IsolationUnit) -> bool {
        iommu_at(unit.node()).is_some_and(|iommu| self.0.iommus.contains(&iommu))
    }
}

impl Topology for ViotTopology {
    fn endpoint(&self, iommu: &Arc<Node>, requester: u32) -> Option<u32> {
        let chain = iommu.chain();
        let iommu = chain.iter().rev().find_map(iommu_at)?;
        let ranges = self.0.pci_ranges.iter();
        let mut ranges = ranges.filter(|range| range.iommu == iommu);
        ranges.find_map(|range| range.endpoint(requester))
    }
}

/// What the table calls the device at a node.
fn iommu_at(node: &Arc<Node>) -> Option<ViotIommu> {
    match place(node.name())? {
        Place::Pci(id) => Some(ViotIommu::Pci(id)),
        Place::VirtioMmio(base) => Some(ViotIommu::Mmio(base)),
    }
}
