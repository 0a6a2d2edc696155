//! The bus driver that lends a vDPA device to one client at a time, which drives it with rings and
//! memory of its own.
//!
//! It is no virtio driver: it looks into no ring. A client opens a device through the
//! [`VhostRegistry`], gets a [`VhostHandle`], and asks in the vocabulary of Linux's `vhost.h` and
//! `vhost-vdpa`. Whatever a client says is only a number until it has been checked: indices and
//! states by [`VdpaDevice`], addresses by the device's translation, amounts of memory by the
//! client's quota.
//!
//! Opening resets the device. Closing stops its queues, drops its callbacks, resets it, unmaps what
//! the client has mapped, and only then lets the next client in. A handle that is dropped is closed
//! by a task. When the device is taken away, the client gets a hang-up event and
//! [`VhostError::HungUp`] for each request; it is not waited for.
//!
//! ```no_run
//! # use vhost_vdpa::{OpenOptions, VhostError, VhostRegistry};
//! # async fn first_device(registry: &VhostRegistry) -> Result<(), VhostError> {
//! let name = registry.next().await;
//! let device = registry.open(&name, OpenOptions::default()).await?;
//! device.set_owner()?;
//! println!("{name} is a device of type {} with {} queues", device.device_id()?, device.queue_count());
//! device.close().await
//! # }
//! ```

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod backend_features;
mod client;
mod error;
mod handle;
mod kick;
mod memory;
mod message;
mod registry;
mod request;
pub mod vhost_client;
mod vhost_node;
mod worker;
mod worker_channel;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::bus::{Bound, Driver, ProbeError};
use vdpa::device::{VdpaClaim, VdpaDevice, VdpaId};
use vdpa::dma::Isolation;
use vdpa::platform::BoxFuture;
#[cfg(feature = "suspend")]
use vdpa::power::PowerError;

pub use self::backend_features::BackendFeatures;
pub use self::error::{Unsuitable, VhostError};
pub use self::handle::VhostHandle;
pub use self::message::IotlbMessage;
pub use self::registry::{OpenOptions, VhostRegistry};
pub use self::request::{Reply, Request};

use self::vhost_node::VhostNode;

/// The version of the protocol: requests, messages and what they mean. A client that speaks another
/// one is refused.
pub const VERSION: u32 = 1;

/// The driver.
#[derive(Debug)]
pub struct VhostVdpa {
    registry: Arc<VhostRegistry>,
    ids: Vec<VdpaId>,
}

impl VhostVdpa {
    /// A driver for the devices that `ids` describe, or whose override names it. Clients find them
    /// in `registry`.
    #[must_use]
    pub fn new(registry: Arc<VhostRegistry>, ids: impl Into<Vec<VdpaId>>) -> Self {
        Self {
            registry,
            ids: ids.into(),
        }
    }
}

impl Driver<VdpaDevice> for VhostVdpa {
    fn name(&self) -> &'static str {
        "vhost_vdpa"
    }

    fn ids(&self) -> &[VdpaId] {
        &self.ids
    }

    fn probe<'a>(
        &'a self,
        device: VdpaClaim,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            check(&device)?;
            let id = self
                .registry
                .allocate_id()
                .map_err(|_| ProbeError::OutOfResources)?;
            let vhost_node = VhostNode::new(device, id);
            self.registry.add(Arc::clone(&vhost_node));
            Ok(Box::new(Binding {
                registry: Arc::clone(&self.registry),
                vhost_node,
            }) as Box<dyn Bound>)
        })
    }
}

fn check(device: &VdpaDevice) -> Result<(), ProbeError> {
    if device.device_type() == 0 {
        return Err(ProbeError::unsuitable(Unsuitable::NoType));
    }
    let one_space = device.space_count() == 1 && device.group_count() == 1;
    if device.isolation() != Isolation::OnChip && !one_space {
        return Err(ProbeError::unsuitable(Unsuitable::SpaceCount));
    }
    Ok(())
}

/// A vDPA device that clients can open.
struct Binding {
    registry: Arc<VhostRegistry>,
    vhost_node: Arc<VhostNode>,
}

impl Bound for Binding {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.registry.remove(&self.vhost_node);
            self.vhost_node.retire().await;
            self.vhost_node.node().detach();
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.vhost_node.retire())
    }

    /// A client would have to be asked, and nobody waits for a client.
    #[cfg(feature = "suspend")]
    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(async {
            if self.vhost_node.is_open() {
                Err(PowerError::Busy)
            } else {
                Ok(())
            }
        })
    }
}
