//! `vduse`: takes the devices that tasks offer, as Linux's module of that name does.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::future::ready;

use spin::Mutex;
use vdpa::device::{DeviceKind, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::platform::BoxFuture;
use vdpa::{Features, Node, Platform};
use vdpa_vduse::Control;

use super::attributes::{AttributeSet, Attributes};
use super::handle::Handle;
use super::manager::{CreateError, ManagementDevice, Product};

/// The virtio device types of network cards and of disks (VIRTIO 1.2, 5).
const CLASSES: [u32; 2] = [1, 2];
const NAME: &str = "vduse";

/// The management device of the devices of tasks. A device is added by the name that its task has
/// given it, and is what the task says.
pub struct Vduse {
    handle: Handle,
    control: Arc<Control>,
    root: Arc<Node>,
    /// What the devices hang below: there as long as one of them is.
    node: Mutex<Weak<Node>>,
    platform: Arc<dyn Platform>,
}

impl Vduse {
    /// Devices of `control`, which hang below `root`.
    #[must_use]
    pub fn new(
        control: &Arc<Control>,
        root: &Arc<Node>,
        platform: &Arc<dyn Platform>,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle: Handle::named(NAME),
            control: Arc::clone(control),
            root: Arc::clone(root),
            node: Mutex::default(),
            platform: Arc::clone(platform),
        })
    }

    fn node(&self) -> Arc<Node> {
        let mut node = self.node.lock();
        node.upgrade().unwrap_or_else(|| {
            let fresh = Node::child(&self.root, NAME);
            *node = Arc::downgrade(&fresh);
            fresh
        })
    }

    fn take(&self, name: &str) -> Result<Product, CreateError> {
        let ops = self.control.attach(name).map_err(CreateError::Task)?;
        let parent = self.node();
        Ok(Product {
            ops,
            config: VdpaDeviceConfig {
                // It translates its addresses itself, and so is isolated from all others.
                dma: IsolationUnit::new(&parent, None, None),
                parent,
                platform: Arc::clone(&self.platform),
                kind: DeviceKind::Software,
                name: None,
            },
            settings: None,
        })
    }
}

impl ManagementDevice for Vduse {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn classes(&self) -> &[u32] {
        &CLASSES
    }

    fn max_queues(&self) -> u32 {
        Control::QUEUES_MAX
    }

    fn features(&self) -> Features {
        Control::features()
    }

    /// None: the task has said everything.
    fn attributes(&self) -> AttributeSet {
        AttributeSet::empty()
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        _attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Product, CreateError>> {
        Box::pin(ready(self.take(name)))
    }
}

impl fmt::Debug for Vduse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vduse").finish_non_exhaustive()
    }
}
