//! What makes devices: a simulator, or a parent driver whose hardware can be divided.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use vdpa::device::VdpaDeviceConfig;
use vdpa::ops::{OpError, VdpaOps};
use vdpa::platform::BoxFuture;
use vdpa::{Features, MacAddress};

use super::attributes::{AttributeSet, Attributes};
use super::handle::Handle;

/// Makes vDPA devices on demand.
pub trait ManagementDevice: Send + Sync {
    /// What the user calls it.
    fn handle(&self) -> &Handle;

    /// The virtio device types that it can make.
    fn classes(&self) -> &[u32];

    /// How many queues a device can have.
    fn max_queues(&self) -> u32;

    /// The features that a device can offer.
    fn features(&self) -> Features;

    /// The attributes that it can deal with.
    fn attributes(&self) -> AttributeSet;

    /// Makes a device. The rules that hold for every management device have been checked: it is
    /// asked only for attributes, features and queues that it says it can deal with. What it
    /// returns is put on the bus by the caller, or dropped.
    ///
    /// # Errors
    /// [`CreateError`]: nothing is left of the device.
    fn create<'a>(
        &'a self,
        name: &'a str,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Product, CreateError>>;
}

/// A device that nobody can see yet.
pub struct Product {
    /// Its operations.
    pub ops: Box<dyn VdpaOps>,
    /// Where it belongs; its name is the user's.
    pub config: VdpaDeviceConfig,
    /// What can be changed later.
    pub settings: Option<Arc<dyn Settings>>,
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The mark of a device that was made on demand.
pub(super) struct Creator {
    /// The management device that has made it.
    pub(super) manager: Handle,
    /// What can be changed later.
    pub(super) settings: Option<Arc<dyn Settings>>,
}

/// What a management device can change of a device while somebody uses it.
pub trait Settings: Send + Sync {
    /// Gives a network device another unicast address.
    ///
    /// # Errors
    /// [`OpError::Unsupported`]; whatever the device answers.
    fn set_mac(&self, mac: MacAddress) -> Result<(), OpError>;
}

/// Why a management device could not make a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// There is not enough memory for it.
    #[error("there is not enough memory for the device, {} KiB are left", left / 1024)]
    OutOfMemory {
        /// How many bytes devices can still have.
        left: u64,
    },
    /// There are as many devices as it can have.
    #[error("the management device has no room for another device")]
    TooMany,
    /// The management device has made no device of the name of the peer.
    #[error("the peer is no device of the management device")]
    NoPeer,
    /// The simulator does not take the values.
    #[cfg(feature = "sim")]
    #[error(transparent)]
    Simulator(vdpa_sim::CreateError),
    /// No task offers such a device, or it cannot be had.
    #[cfg(feature = "vduse")]
    #[error(transparent)]
    Task(vdpa_vduse::AttachError),
}

#[cfg(feature = "sim")]
impl CreateError {
    /// The simulator's error, when devices can still have `left` bytes.
    pub(super) fn of_simulator(error: vdpa_sim::CreateError, left: u64) -> Self {
        match error {
            vdpa_sim::CreateError::OutOfMemory => Self::OutOfMemory { left },
            other => Self::Simulator(other),
        }
    }
}
