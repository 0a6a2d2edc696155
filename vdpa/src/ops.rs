//! What a parent driver implements: the operations of a vDPA device.
//!
//! An implementation may assume that the caller is [`VdpaDevice`](crate::device::VdpaDevice):
//! indices are in range, sizes are legal, the status machine is kept, and nothing is called after
//! removal. It checks what the *device* answers, and only that.
//!
//! Operations that may wait for the device are futures with a deadline of the parent's choosing.

use alloc::boxed::Box;
use core::future::ready;

use virtio::DeviceStatus;
use virtq::{DmaAddr, Doorbell, RingState};

use crate::features::Features;
use crate::platform::{BoxFuture, Callback};

/// Why an operation of a device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The device has been removed, or no longer answers.
    #[error("the device is gone")]
    Gone,
    /// The device did not do what was asked within its deadline.
    #[error("the device did not answer in time")]
    Timeout,
    /// The queue index, or the range of the configuration space, does not exist.
    #[error("no such queue or configuration field")]
    OutOfRange,
    /// The value is not one the device can take.
    #[error("the device cannot take this value")]
    Invalid,
    /// The operation is not allowed in the device's present state.
    #[error("not allowed in the device's present state")]
    WrongState,
    /// The device does not offer the operation.
    #[error("the device does not offer this")]
    Unsupported,
    /// The device refused the features.
    #[error("the device refused the features")]
    FeaturesRefused,
    /// The device refused an interrupt vector.
    #[error("the device refused an interrupt vector")]
    VectorRefused,
    /// Memory or interrupt vectors ran out.
    #[error("out of memory or interrupt vectors")]
    OutOfResources,
    /// The device broke its contract and must be reset.
    #[error("the device broke the protocol")]
    Broken,
}

/// Where the three parts of a queue lie, as the device sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAddress {
    /// Descriptor area.
    pub descriptor: DmaAddr,
    /// Driver area (the available ring of a split queue).
    pub driver: DmaAddr,
    /// Device area (the used ring of a split queue).
    pub device: DmaAddr,
}

/// Where a queue stands: enough to go on with it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// A split queue: the index in the available ring that the device takes next.
    Split {
        /// Next available index.
        avail_index: u16,
    },
    /// A packed queue: the descriptors that the device takes next and uses next.
    Packed {
        /// Next available descriptor.
        avail_index: u16,
        /// The driver's wrap counter there.
        avail_wrap: bool,
        /// Next used descriptor.
        used_index: u16,
        /// The device's wrap counter there.
        used_wrap: bool,
    },
}

/// A queue with nothing in flight.
impl From<RingState> for QueueState {
    fn from(state: RingState) -> Self {
        match state {
            RingState::Split { index } => Self::Split { avail_index: index },
            RingState::Packed { index, wrap } => Self::Packed {
                avail_index: index,
                avail_wrap: wrap,
                used_index: index,
                used_wrap: wrap,
            },
        }
    }
}

/// Who translates the addresses that the device uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaModel {
    /// The platform: its IOMMU, or nobody. Memory comes from [`Platform::dma`](crate::Platform::dma).
    Platform,
}

/// The operations of one vDPA device.
pub trait VdpaOps: Send + Sync {
    /// The virtio device type (VIRTIO 1.2, section 5); 0 is invalid.
    fn device_id(&self) -> u32;

    /// Who made the device; for PCI the subsystem vendor id.
    fn vendor_id(&self) -> u32;

    /// Who translates the device's addresses.
    fn dma_model(&self) -> DmaModel {
        DmaModel::Platform
    }

    /// The features that the device offers.
    fn device_features(&self) -> Features;

    /// The features that were last accepted.
    fn driver_features(&self) -> Features;

    /// Tells the device which features will be used.
    ///
    /// # Errors
    /// [`OpError::FeaturesRefused`], if the device cannot work with this set.
    fn set_driver_features(&self, features: Features) -> Result<(), OpError>;

    /// The device status.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    fn status(&self) -> Result<DeviceStatus, OpError>;

    /// Writes a status that is not zero. The parent takes its interrupt vectors before `DRIVER_OK`.
    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>>;

    /// Resets the device and waits until it has stopped all access to memory. Afterwards no queue is
    /// ready, no callback is set and no interrupt of the device is under way.
    ///
    /// # Errors
    /// [`OpError::Timeout`], if the device does not come out of reset: it may still use its memory.
    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>>;

    /// Stops the workers that are the device's DMA engine, and waits for their end. Called once,
    /// after the last reset.
    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// How many queues there are.
    fn queue_count(&self) -> u16;

    /// The largest size that the queue can have; 0 if the queue does not exist.
    fn queue_size_max(&self, queue: u16) -> u16;

    /// The smallest size that a queue can have.
    fn queue_size_min(&self) -> u16 {
        1
    }

    /// The alignment that the parts of a queue need, in bytes, if above the specification's.
    fn queue_align(&self) -> usize;

    /// Sets how many entries the queue has.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the device refuses the size.
    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError>;

    /// Sets where the queue lies.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the device cannot reach the addresses.
    fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError>;

    /// Sets where the queue starts, before it is made ready.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware can only start afresh and `state` is not the start.
    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError>;

    /// Where the queue stands, once it has been stopped.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware does not tell.
    fn queue_state(&self, queue: u16) -> Result<QueueState, OpError>;

    /// What to call when the queue has used buffers; `None` for a queue that is polled.
    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>);

    /// Starts or stops the queue.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware can stop a queue by reset alone.
    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>>;

    /// Whether the queue is started.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    fn queue_ready(&self, queue: u16) -> Result<bool, OpError>;

    /// How the driver notifies the queue. It is fetched once, when the queue is set up.
    ///
    /// # Errors
    /// [`OpError::Broken`], if the device has no usable notification register for it.
    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError>;

    /// What to call when the configuration space has changed.
    fn set_config_callback(&self, callback: Option<Callback>);

    /// The size of the configuration space in bytes.
    fn config_size(&self) -> u32;

    /// Reads from the configuration space, consistently: what is returned was all there at one moment.
    ///
    /// # Errors
    /// [`OpError::Timeout`], if the device changes its configuration faster than it can be read.
    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError>;

    /// Writes to the configuration space.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError>;

    /// A number that changes whenever the configuration space does.
    fn config_generation(&self) -> u32;
}
