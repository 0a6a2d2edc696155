//! What a parent driver implements: the operations of a vDPA device.
//!
//! An implementation may assume that the caller is [`VdpaDevice`](crate::device::VdpaDevice):
//! indices are in range, sizes are legal, the status machine is kept, and nothing is called after
//! removal. It checks what the *device* answers, and only that.
//!
//! Operations that may wait for the device are futures with a deadline of the parent's choosing,
//! which the caller bounds by one of its own. Everything else is a plain call, because it changes
//! only what the parent, or a register, keeps: a parent that has to ask somebody else delivers it
//! with the next operation that may wait. So features go along with `FEATURES_OK`, size, place,
//! state and callback of a queue with [`set_queue_ready`](VdpaOps::set_queue_ready) or
//! [`resume`](VdpaOps::resume), and reads of status and configuration are answered from a copy that
//! the other side keeps up to date.

mod queue;
mod translation;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::ready;

use bitflags::bitflags;
use virtio::DeviceStatus;
use virtq::{DmaAddr, Doorbell};

use crate::features::Features;
use crate::iotlb::IovaRange;
use crate::platform::{BoxFuture, Callback, InterruptMessage, PhysAddr};

pub use self::queue::{QueueAddress, QueueState};
pub use self::translation::{DmaModel, IncrementalMap, WholeMap};
pub use crate::backing::Backing;
pub use crate::error::OpError;

/// A log of the pages that a device writes: a bitmap in memory that the device reaches.
///
/// Bit `n % 8` of byte `n / 8` stands for page `n`, which is the one at address `n * 4096` as the
/// device sees it. Pages for which the bitmap has no bit are not logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyLog {
    /// Where the device finds the bitmap: the start of a page.
    pub base: DmaAddr,
    /// The length of the bitmap in bytes, not zero. The device writes nothing beyond.
    pub len: u64,
}

/// The page of a doorbell, for a client that rings it without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationArea {
    /// Where the doorbell lies.
    pub base: PhysAddr,
    /// How many bytes around it hold nothing but the doorbells of this queue.
    pub len: u64,
}

bitflags! {
    /// What a device can do beyond the virtio specification, as the backend features of vhost.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Abilities: u32 {
        /// [`VdpaOps::suspend`].
        const SUSPEND = 1 << 0;
        /// [`VdpaOps::resume`].
        const RESUME = 1 << 1;
        /// A queue may be made ready after `DRIVER_OK`.
        const ENABLE_AFTER_DRIVER_OK = 1 << 2;
        /// Ring state can be read back while the device is suspended or its queue is stopped.
        const QUEUE_STATE = 1 << 3;
        /// What is mapped survives a reset.
        const PERSISTENT_MAPS = 1 << 4;
        /// [`VdpaOps::start_dirty_log`] and [`VdpaOps::stop_dirty_log`].
        const DIRTY_LOG = 1 << 5;
    }
}

/// A counter of a queue: what it counts, in the vocabulary of the vendor, and how much.
pub type VendorCounter = (&'static str, u64);

/// The operations of one vDPA device.
///
/// # Safety
/// The device touches no memory but that of its rings, what they lead it to and its log, by the
/// addresses that it has been told; none before it is told to start, and none after a reset has
/// succeeded. What is mapped for it serves nothing else.
pub unsafe trait VdpaOps: Send + Sync {
    /// The virtio device type (VIRTIO 1.2, section 5); 0 is invalid.
    fn device_id(&self) -> u32;

    /// Who made the device; for PCI the subsystem vendor id.
    fn vendor_id(&self) -> u32;

    /// Who translates the device's addresses.
    fn dma_model(&self) -> DmaModel<'_> {
        DmaModel::Platform
    }

    /// What the device can do beyond the virtio specification.
    fn abilities(&self) -> Abilities {
        Abilities::empty()
    }

    /// The addresses that the device can use, where it translates them itself.
    fn iova_range(&self) -> IovaRange {
        IovaRange::ALL
    }

    /// How many address spaces there are; more than one only where the device translates itself.
    fn address_space_count(&self) -> u16 {
        1
    }

    /// How many groups of queues there are. The queues of a group share an address space.
    fn group_count(&self) -> u16 {
        1
    }

    /// The group that a queue belongs to.
    fn queue_group(&self, _queue: u16) -> u16 {
        0
    }

    /// The group whose address space the rings of a queue are in, if it may differ from that of the
    /// buffers.
    fn descriptor_group(&self, _queue: u16) -> Option<u16> {
        None
    }

    /// Puts a group into an address space. A reset puts all of them into address space 0.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if there is only one.
    fn set_group_address_space(
        &self,
        _group: u16,
        _space: u16,
    ) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(ready(Err(OpError::Unsupported)))
    }

    /// Takes away everything that is mapped in an address space, where the device translates
    /// itself.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    fn reset_map(&self, _space: u16) -> Result<(), OpError> {
        Ok(())
    }

    /// Waits until every earlier change of an address space holds: afterwards the device uses no
    /// memory that was taken away before.
    ///
    /// # Errors
    /// [`OpError::Timeout`], if the device may still use such memory.
    fn settle(&self, _space: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(ready(Ok(())))
    }

    /// Stops the device without forgetting anything: it takes no further descriptor, finishes those
    /// that it has taken or puts them back, and answers everything else. What is kicked meanwhile
    /// is looked at on [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`OpError::Unsupported`]; [`OpError::Timeout`], if the device does not come to rest.
    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(ready(Err(OpError::Unsupported)))
    }

    /// Lets a suspended device go on.
    ///
    /// # Errors
    /// [`OpError::Unsupported`].
    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(ready(Err(OpError::Unsupported)))
    }

    /// Begins to log which pages the device writes, in whichever address space; the bitmap is in
    /// the first one. A bit is set after the page has been written, in a way that loses none that
    /// others set or clear meanwhile. What the device writes into buffers is logged; for the rings
    /// the caller sets bits.
    ///
    /// # Errors
    /// [`OpError::Unsupported`]; [`OpError::Invalid`], if the device cannot reach the bitmap:
    /// nothing is logged.
    ///
    /// # Safety
    /// No buffer that a program has lies in the bitmap.
    unsafe fn start_dirty_log(&self, _log: DirtyLog) -> Result<(), OpError> {
        Err(OpError::Unsupported)
    }

    /// Ends the log, as does a [`reset`](Self::reset). Afterwards the device writes the bitmap no
    /// more, and what was under way to it has arrived: its memory may be used for something else.
    /// (To read a register back pushes the earlier writes of a PCI device to their end: PCI Express
    /// 6.0, 2.4.1.)
    ///
    /// # Errors
    /// [`OpError::Unsupported`]; [`OpError::Timeout`], if the device may still write the bitmap.
    fn stop_dirty_log(&self) -> Result<(), OpError> {
        Err(OpError::Unsupported)
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

    /// Resets the device and waits until it has stopped all access to memory. Afterwards no queue
    /// is ready, no callback is set and no interrupt of the device is under way.
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
    ///
    /// # Safety
    /// As for [`VdpaClaim::set_queue_address`](crate::device::VdpaClaim::set_queue_address).
    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError>;

    /// Sets where the queue starts, before it is made ready, or where it goes on, while the device
    /// is suspended.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware can only start afresh and `state` is not the
    /// start.
    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError>;

    /// Where the queue stands, once it has been stopped or the device is suspended; before it has
    /// been ready, where it starts.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware does not tell.
    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>>;

    /// What to call when the queue has used buffers; `None` for a queue that is polled.
    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>);

    /// Starts or stops the queue. One that is started again goes on where it stood, if the device
    /// has [`Abilities::QUEUE_STATE`], and from the start otherwise; its size and its place are as
    /// before.
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

    /// Where the doorbell of a queue lies, if a client may be given it: nothing but doorbells of
    /// this queue lie in that area, and a 16-bit store of the queue's index rings it.
    fn notification_area(&self, _queue: u16) -> Option<NotificationArea> {
        None
    }

    /// The message that the device sends for this queue alone, if there is one. It does not change
    /// between `DRIVER_OK` and the next reset.
    fn queue_interrupt(&self, _queue: u16) -> Option<InterruptMessage> {
        None
    }

    /// What the device has counted for a queue since it was made.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if it does not count.
    fn queue_statistics(&self, _queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        Err(OpError::Unsupported)
    }

    /// What to call when the configuration space has changed.
    fn set_config_callback(&self, callback: Option<Callback>);

    /// The size of the configuration space in bytes.
    fn config_size(&self) -> u32;

    /// Reads from the configuration space, consistently: what is returned was all there at one
    /// moment.
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
