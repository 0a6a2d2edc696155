//! What the makers of simulated devices have in common.

use alloc::sync::{Arc, Weak};

use spin::Mutex;
use vdpa::device::{DeviceKind, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::{Node, Platform};

/// The most devices of a maker at once: each has a worker and memory.
pub(super) const DEVICES_MAX: usize = 1024;

/// Where the devices of a maker hang in the device tree: below a node that is there as long as one of them is.
pub(super) struct Place {
    name: &'static str,
    root: Arc<Node>,
    platform: Arc<dyn Platform>,
    node: Mutex<Weak<Node>>,
}

impl Place {
    pub(super) fn new(name: &'static str, root: &Arc<Node>, platform: &Arc<dyn Platform>) -> Self {
        Self {
            name,
            root: Arc::clone(root),
            platform: Arc::clone(platform),
            node: Mutex::default(),
        }
    }

    pub(super) fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// For one more device, which translates its addresses itself and so is isolated from all others.
    pub(super) fn config(&self) -> VdpaDeviceConfig {
        let parent = self.node();
        VdpaDeviceConfig {
            dma: IsolationUnit::new(&parent, None, None),
            parent,
            platform: Arc::clone(&self.platform),
            kind: DeviceKind::Software,
            name: None,
        }
    }

    fn node(&self) -> Arc<Node> {
        let mut node = self.node.lock();
        node.upgrade().unwrap_or_else(|| {
            let fresh = Node::child(&self.root, self.name);
            *node = Arc::downgrade(&fresh);
            fresh
        })
    }
}
