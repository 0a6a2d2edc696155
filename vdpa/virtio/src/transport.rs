//! What a virtio device asks of the way to its hardware.
//!
//! There are two ways: straight over a vDPA device ([`virtio_vdpa`](crate::virtio_vdpa)), and as a
//! client of vhost. A [`VirtioDevice`](super::VirtioDevice) and its driver do not know which one it
//! is, and can change from one to another while they run. The words are those of
//! [`VdpaOps`](vdpa::VdpaOps), and who is behind a transport checks what it is told.

use alloc::sync::Arc;
use core::fmt::Debug;

use vdpa::dma::MapTarget;
use vdpa::ops::{Abilities, OpError, QueueAddress, QueueState};
use vdpa::platform::BoxFuture;
use vdpa::{Features, Node, Platform};
use virtio::DeviceStatus;
use virtq::{Doorbell, Event};

/// The way from a virtio device to what carries its requests out.
///
/// Every operation may answer [`OpError::Gone`]; an error without a word here is whatever the
/// device answers.
///
/// # Safety
/// A device that has been reset touches no memory, and the target for maps is the device's.
pub unsafe trait Transport: Debug + Send + Sync {
    /// Below whom the virtio device hangs in the device tree.
    fn node(&self) -> &Arc<Node>;

    /// Where memory is made reachable for the device.
    fn map_target(&self) -> Arc<dyn MapTarget>;

    /// The kernel's services.
    fn platform(&self) -> &Arc<dyn Platform>;

    /// The virtio device type (VIRTIO 1.2, section 5).
    fn device_type(&self) -> u32;

    /// Who made the device.
    fn vendor_id(&self) -> u32;

    /// What the device can do beyond the virtio specification.
    fn abilities(&self) -> Abilities;

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

    /// The size of the configuration space in bytes.
    ///
    /// # Errors
    /// [`OpError`].
    fn config_size(&self) -> Result<u32, OpError>;

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

    /// How many queues there are.
    fn queue_count(&self) -> u16;

    /// The smallest and the largest size of a queue.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    fn queue_size_limits(&self, queue: u16) -> Result<(u16, u16), OpError>;

    /// The alignment that the parts of a queue need, in bytes, if above the specification's.
    fn queue_align(&self) -> usize;

    /// Sets how many entries the queue has.
    ///
    /// # Errors
    /// [`OpError::Invalid`].
    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError>;

    /// Sets where the queue lies.
    ///
    /// # Errors
    /// [`OpError::Invalid`].
    ///
    /// # Safety
    /// As for [`VdpaClaim::set_queue_address`](vdpa::device::VdpaClaim::set_queue_address).
    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError>;

    /// Sets where the queue starts.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the device can only start afresh.
    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError>;

    /// Where the queue of a suspended device stands, where [`Abilities::QUEUE_STATE`] says so.
    ///
    /// # Errors
    /// [`OpError::Unsupported`].
    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>>;

    /// What to raise when the queue has used buffers; `None` for a queue that is polled.
    ///
    /// # Errors
    /// [`OpError`].
    fn set_queue_event(&self, queue: u16, event: Option<Arc<Event>>) -> Result<(), OpError>;

    /// Lets the device use the queue.
    fn start_queue(&self, queue: u16) -> BoxFuture<'_, Result<(), OpError>>;

    /// How the driver notifies the queue.
    ///
    /// # Errors
    /// [`OpError::Broken`], if the device has no usable notification register for it.
    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError>;

    /// Gives the device back, after the last reset and when none of its memory is mapped any more.
    fn close(&self) -> BoxFuture<'_, ()>;
}
