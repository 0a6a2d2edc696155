//! What a virtio device asks of the way to its hardware.
//!
//! There are two ways: straight over a vDPA device ([`virtio_vdpa`](crate::virtio_vdpa)), and as a
//! client of vhost. A [`VirtioDevice`](super::VirtioDevice) and its driver do not know which one it
//! is, and can change from one to another while they run. The words are those of
//! [`VdpaOps`](vdpa::VdpaOps), and who is behind a transport checks what it is told.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Debug;

use vdpa::dma::MapTarget;
use vdpa::ops::{Abilities, OpError, QueueAddress, QueueState};
use vdpa::platform::BoxFuture;
use vdpa::{Features, Node, Platform};
use virtio::DeviceStatus;
use virtq::{Doorbell, Event};

/// What does not change about the device behind a transport.
#[derive(Debug)]
pub struct DeviceInfo {
    /// Below whom the virtio device hangs in the device tree.
    pub node: Arc<Node>,
    /// The kernel's services.
    pub platform: Arc<dyn Platform>,
    /// The virtio device type (VIRTIO 1.2, section 5).
    pub device_type: u32,
    /// Who made the device.
    pub vendor_id: u32,
    /// What the device can do beyond the virtio specification.
    pub abilities: Abilities,
    /// The size of the configuration space in bytes.
    pub config_size: u32,
    /// The smallest and the largest size of each queue.
    pub queue_sizes: Box<[(u16, u16)]>,
    /// The alignment that the parts of a queue need, in bytes, if above the specification's.
    pub queue_align: usize,
}

impl DeviceInfo {
    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        // A queue has a number of 16 bits.
        self.queue_sizes.len().try_into().unwrap_or(u16::MAX)
    }

    /// The smallest and the largest size of a queue.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    pub(super) fn queue_size_limits(&self, queue: u16) -> Result<(u16, u16), OpError> {
        let sizes = self.queue_sizes.get(usize::from(queue));
        sizes.copied().ok_or(OpError::OutOfRange)
    }
}

/// A queue that a device is told of.
#[derive(Clone, Debug)]
pub struct QueueSetup {
    /// How many entries it has.
    pub size: u16,
    /// Where it lies.
    pub address: QueueAddress,
    /// Where it starts.
    pub state: QueueState,
    /// What to raise when it has used buffers; `None` for a queue that is polled.
    pub event: Option<Arc<Event>>,
}

/// The way from a virtio device to what carries its requests out.
///
/// Every operation may answer [`OpError::Gone`]; an error without a word here is whatever the
/// device answers.
///
/// # Safety
/// A device that has been reset touches no memory, and the target for maps is the device's.
pub unsafe trait Transport: Debug + Send + Sync {
    /// What does not change.
    fn info(&self) -> &DeviceInfo;

    /// Where memory is made reachable for the device.
    fn map_target(&self) -> Arc<dyn MapTarget>;

    /// The features that the device offers.
    ///
    /// # Errors
    /// [`OpError`].
    fn device_features(&self) -> Result<Features, OpError>;

    /// Says which of the offered features will be used.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if one is not offered.
    fn set_driver_features(&self, features: Features) -> Result<(), OpError>;

    /// The device status.
    ///
    /// # Errors
    /// [`OpError`].
    fn status(&self) -> Result<DeviceStatus, OpError>;

    /// Adds bits to the device status.
    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>>;

    /// Resets the device: afterwards it touches no memory and calls nothing.
    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>>;

    /// Whether the device did not come out of its last reset.
    fn is_lost(&self) -> bool;

    /// Stops the device without forgetting anything, where [`Abilities::SUSPEND`] says so.
    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>>;

    /// Lets a suspended device go on, where [`Abilities::RESUME`] says so.
    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>>;

    /// Reads from the configuration space; all bytes are of one moment.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`].
    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError>;

    /// Writes to the configuration space.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`].
    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError>;

    /// What to raise when the configuration space has changed.
    ///
    /// # Errors
    /// [`OpError`].
    fn set_config_event(&self, event: Arc<Event>) -> Result<(), OpError>;

    /// Tells the device of a queue, and lets it use the queue.
    ///
    /// # Safety
    /// As for [`VdpaClaim::set_queue_address`](vdpa::device::VdpaClaim::set_queue_address).
    unsafe fn start_queue(
        &self,
        queue: u16,
        setup: QueueSetup,
    ) -> BoxFuture<'_, Result<(), OpError>>;

    /// Where the queue of a suspended device stands, where [`Abilities::QUEUE_STATE`] says so.
    ///
    /// # Errors
    /// [`OpError::Unsupported`].
    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>>;

    /// How the driver notifies the queue.
    ///
    /// # Errors
    /// [`OpError::Broken`], if the device has no usable notification register for it.
    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError>;

    /// Gives the device back, after the last reset and when none of its memory is mapped any more.
    fn close(&self) -> BoxFuture<'_, ()>;
}
