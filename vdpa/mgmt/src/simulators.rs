//! What the makers of simulated devices have in common.

use alloc::sync::{Arc, Weak};

use spin::Mutex;
use vdpa::device::{DeviceKind, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::{Node, Platform};

use super::manager::CreateError;
use super::report::REPORT_BYTES;

/// The most devices of a maker at once: each has a worker and memory.
pub(super) const DEVICES_MAX: usize = 1024;

/// What a device takes besides the contents of a disk, in bytes, and each of its queues: itself and
/// its worker, the driver that may come to it, and what is said about it.
const DEVICE_BYTES: u64 = 64 * 1024;
const QUEUE_BYTES: u64 = 8 * 1024;

/// Where the devices of a maker hang in the device tree: below a node that is there as long as one
/// of them is.
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

    /// Whether there is memory for one more device, with `queues` queues and these bytes of
    /// contents.
    pub(super) fn check_memory(&self, queues: u16, contents: u64) -> Result<(), CreateError> {
        let left = self.platform.memory_left();
        let makers = self.root.children().into_iter();
        let devices: usize = makers.map(|maker| maker.children().len()).sum();
        let reports = REPORT_BYTES.saturating_mul(devices as u64);
        let left = left.saturating_sub(reports);
        let queues = QUEUE_BYTES.saturating_mul(queues.into());
        if DEVICE_BYTES.saturating_add(queues).saturating_add(contents) > left {
            return Err(CreateError::OutOfMemory { left });
        }
        Ok(())
    }

    /// For one more device, which translates its addresses itself and so is isolated from all
    /// others.
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
