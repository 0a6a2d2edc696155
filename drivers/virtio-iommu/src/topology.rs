//! Which devices an IOMMU stands before, and what it calls them.

use alloc::sync::Arc;
use core::fmt::Debug;

use vdpa::Node;

/// What the machine's tables say of its virtio IOMMUs.
pub trait Topology: Debug + Send + Sync {
    /// What an IOMMU calls a requester, if it translates for it. `iommu` is its place in the device
    /// tree, `requester` the PCI segment (upper half) with bus, device and function.
    fn endpoint(&self, iommu: &Arc<Node>, requester: u32) -> Option<u32>;
}
