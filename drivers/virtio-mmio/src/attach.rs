//! From a description to a device on the vDPA bus.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use vdpa::device::{DeviceKind, VdpaBus, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::{Node, Platform, VdpaOps};

use super::description::Description;
use super::parent::{Parent, ProbeError};

/// What puts devices on the vDPA bus.
pub struct VirtioMmio {
    platform: Arc<dyn Platform>,
    bus: Arc<VdpaBus>,
    /// Below which node of the device tree they hang.
    root: Arc<Node>,
    attached: Vec<u64>,
}

impl VirtioMmio {
    /// Devices below `root` on `bus`.
    #[must_use]
    pub fn new(platform: &Arc<dyn Platform>, bus: &Arc<VdpaBus>, root: &Arc<Node>) -> Self {
        Self {
            platform: Arc::clone(platform),
            bus: Arc::clone(bus),
            root: Arc::clone(root),
            attached: Vec::new(),
        }
    }

    /// Puts a device on the bus, and says so, or why not. What is described again, as a monitor
    /// does that names its devices in two ways, is one device.
    ///
    /// # Safety
    /// As for [`Parent::probe`].
    pub async unsafe fn attach(&mut self, description: &Description) {
        if self.attached.contains(&description.base.0) {
            return;
        }
        self.attached.push(description.base.0);
        // SAFETY: passed on to the caller.
        let parent = unsafe { Parent::probe(description, &self.platform) };
        match parent.await {
            Ok(parent) => self.register(description, parent).await,
            Err(ProbeError::Empty) => {}
            Err(error) => log::warn!("virtio_mmio {description}: {error}"),
        }
    }

    async fn register(&self, description: &Description, parent: Parent) {
        let queues = parent.queue_count();
        let plural = if queues == 1 { "" } else { "s" };
        log::info!(
            "virtio_mmio {description}: {queues} queue{plural}, interrupt {}",
            description.line.number
        );
        let node = Node::child(&self.root, &format!("virtio_mmio.{description}"));
        let config = VdpaDeviceConfig {
            dma: IsolationUnit::new(&node, None, None),
            parent: node,
            platform: Arc::clone(&self.platform),
            kind: DeviceKind::Pf,
            name: None,
        };
        if let Err(error) = self.bus.register(Box::new(parent), config).await {
            log::warn!("virtio_mmio {description}: {error}");
        }
    }
}

impl fmt::Debug for VirtioMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtioMmio({} places)", self.attached.len())
    }
}
