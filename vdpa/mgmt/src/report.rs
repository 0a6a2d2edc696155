//! What management tells about management devices, devices and queues.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use vdpa::Features;
use vdpa::config::net;
use vdpa::device::VdpaDevice;
use vdpa::device::type_name;
use vdpa::ops::VendorCounter;
use virtio::DeviceStatus;

use super::attributes::AttributeSet;
use super::error::MgmtError;
use super::handle::Handle;
use super::is_type;
use super::manager::ManagementDevice;

/// What a report or a page about all devices at once takes for each of them, in bytes. Simulated
/// devices leave so much free.
pub const REPORT_BYTES: u64 = 10 * 1024;

/// What a management device can make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerReport {
    /// What it is called.
    pub handle: Handle,
    /// The virtio device types, lowest first.
    pub classes: Vec<u32>,
    /// How many queues a device can have.
    pub max_queues: u32,
    /// The features that a device can offer.
    pub features: Features,
    /// The attributes that it takes; none, if it makes no devices on demand.
    pub attributes: AttributeSet,
}

impl ManagerReport {
    pub(super) fn of_manager(manager: &dyn ManagementDevice) -> Self {
        let mut classes = Vec::new();
        for class in manager.classes() {
            let place = classes.partition_point(|other| other < class);
            classes.insert(place, *class);
        }
        Self {
            handle: manager.handle().clone(),
            classes,
            max_queues: manager.max_queues(),
            features: manager.features(),
            attributes: manager.attributes(),
        }
    }

    /// What a parent can make is what it has made by itself.
    pub(super) fn of_parent(handle: Handle, device: &VdpaDevice) -> Self {
        let mut report = Self {
            handle,
            classes: Vec::new(),
            max_queues: 0,
            features: Features::EMPTY,
            attributes: AttributeSet::empty(),
        };
        report.include(device);
        report
    }

    /// Counts a device that came by itself.
    pub(super) fn include(&mut self, device: &VdpaDevice) {
        let class = device.device_type();
        if let Err(place) = self.classes.binary_search(&class) {
            self.classes.insert(place, class);
        }
        self.max_queues = self.max_queues.max(device.queue_count().into());
        let offered = device.device_features().unwrap_or_default();
        self.features = self.features.union(offered);
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// What it is called.
    pub name: String,
    /// Its virtio device type.
    pub device_type: u32,
    /// Who made or found it.
    pub manager: Handle,
    /// Who made the hardware.
    pub vendor_id: u32,
    /// How many queues it has.
    pub max_queues: u16,
    /// The largest size of a queue, in descriptors.
    pub max_queue_size: u16,
}

impl DeviceReport {
    /// What people call its type.
    #[must_use]
    pub fn type_name(&self) -> Cow<'static, str> {
        type_name(self.device_type)
    }

    pub(super) fn new(device: &VdpaDevice, manager: Handle) -> Self {
        let queues = device.queue_count();
        let sizes = (0..queues).filter_map(|queue| device.queue_size_limits(queue).ok());
        Self {
            name: device.node().name().to_owned(),
            device_type: device.device_type(),
            manager,
            vendor_id: device.vendor_id(),
            max_queues: queues,
            max_queue_size: sizes.map(|(_, largest)| largest).max().unwrap_or(0),
        }
    }
}

/// What a device has counted for one of its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStatistics {
    /// What the queue is for.
    pub kind: QueueKind,
    /// The counters, with the vendor's names.
    pub counters: Vec<VendorCounter>,
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Frames from the network.
    Receive,
    /// Frames to the network.
    Transmit,
    /// Commands to a network device.
    Control,
    /// Requests to a block device.
    Request,
}

impl QueueStatistics {
    /// Asks the device.
    pub(super) fn read(device: &VdpaDevice, queue: u32) -> Result<Self, MgmtError> {
        let queues = device.queue_count();
        let index = u16::try_from(queue).ok().filter(|index| *index < queues);
        let index = index.ok_or(MgmtError::NoQueue { queues })?;
        let kind = QueueKind::of(device, index)?;
        Ok(Self {
            kind,
            counters: device.queue_statistics(index)?,
        })
    }
}

impl QueueKind {
    /// What the queue of an index is for depends on what has been negotiated (VIRTIO 1.2, 5.1.2).
    fn of(device: &VdpaDevice, index: u16) -> Result<Self, MgmtError> {
        let is_net = is_type(device, virtio::Id::Net);
        if !is_net && !is_type(device, virtio::Id::Block) {
            return Err(MgmtError::Unsupported);
        }
        if !device.status()?.contains(DeviceStatus::FEATURES_OK) {
            return Err(MgmtError::Again);
        }
        if !is_net {
            return Ok(Self::Request);
        }
        let features = device.driver_features()?;
        let has_control = features.contains(virtio::net::F::CTRL_VQ);
        Ok(
            if has_control && index == control_queue(device, features)? {
                Self::Control
            } else if index.is_multiple_of(2) {
                Self::Receive
            } else {
                Self::Transmit
            },
        )
    }
}

/// The control queue comes after all the pairs that the device has, or after the first, if the
/// driver does not know of more.
fn control_queue(device: &VdpaDevice, features: Features) -> Result<u16, MgmtError> {
    let several = features.contains(virtio::net::F::MQ) || features.contains(virtio::net::F::RSS);
    if !several {
        return Ok(2);
    }
    let pairs = net::MAX_VIRTQUEUE_PAIRS.read(|at, bytes| device.read_config(at, bytes))?;
    Ok(pairs.saturating_mul(2))
}
