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
pub(super) struct ViotTopology(Viot);

impl ViotTopology {
    /// What the table says.
    pub(super) fn new(table: Viot) -> Self {
        Self(table)
    }

    /// Whether the unit is that of an IOMMU itself, which comes before it translates.
    pub(super) fn is_iommu(&self, unit: &IsolationUnit) -> bool {
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
