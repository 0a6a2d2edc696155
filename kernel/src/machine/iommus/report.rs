//! The machine's IOMMUs in the device tree.

use alloc::sync::Arc;
use alloc::vec::Vec;

use iommu::{Iommu, Iommus};
use vdpa::Node;
use vdpa::tree::{Inspect, Report};

/// Their nodes, which are there as long as the value lives.
#[derive(Debug)]
pub(crate) struct Nodes(#[expect(dead_code, reason = "kept alive")] Vec<Arc<Node>>);

impl Nodes {
    /// A node below `root` for each of them.
    pub(crate) fn new(iommus: &Iommus, root: &Arc<Node>) -> Self {
        let node = |iommu: Arc<dyn Iommu>| {
            let node = Node::child(root, &iommu.name());
            node.set_inspector(Some(Arc::new(Inspector(iommu))));
            node
        };
        Self(iommus.list().into_iter().map(node).collect())
    }
}

struct Inspector(Arc<dyn Iommu>);

impl Inspect for Inspector {
    fn report(&self) -> Report {
        self.0.report()
    }
}
