//! What a client can ask for, and what it is answered.
//!
//! The vocabulary is that of Linux's `vhost.h` (`VHOST_*`, `VHOST_VDPA_*`), without its numbers and
//! its encodings. A client written in Rust calls the methods of
//! [`VhostHandle`](super::VhostHandle); these types are for one that gets its requests from
//! elsewhere.

use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::Features;
use vdpa::iotlb::IovaRange;
use vdpa::ops::{DirtyLog, QueueAddress, QueueState};
use virtio::DeviceStatus;
use virtq::Event;

use super::BackendFeatures;

/// A request. Whatever is in it is only a number until it has been checked.
///
/// The errors are those of the method of the same name.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are the arguments of the methods")]
pub enum Request {
    /// [`set_owner`](super::VhostHandle::set_owner).
    SetOwner,
    /// [`features`](super::VhostHandle::features).
    GetFeatures,
    /// [`set_features`](super::VhostHandle::set_features).
    SetFeatures(Features),
    /// [`backend_features`](super::VhostHandle::backend_features).
    GetBackendFeatures,
    /// [`set_backend_features`](super::VhostHandle::set_backend_features).
    SetBackendFeatures(BackendFeatures),
    /// [`device_id`](super::VhostHandle::device_id).
    GetDeviceId,
    /// [`vendor_id`](super::VhostHandle::vendor_id).
    GetVendorId,
    /// [`status`](super::VhostHandle::status).
    GetStatus,
    /// [`set_status`](super::VhostHandle::set_status).
    SetStatus(DeviceStatus),
    /// [`config_size`](super::VhostHandle::config_size).
    GetConfigSize,
    /// [`config`](super::VhostHandle::config).
    GetConfig { offset: u32, len: u32 },
    /// [`set_config`](super::VhostHandle::set_config).
    SetConfig { offset: u32, bytes: Vec<u8> },
    /// [`set_config_call`](super::VhostHandle::set_config_call).
    SetConfigCall(Option<Arc<Event>>),
    /// [`queue_count`](super::VhostHandle::queue_count).
    GetVqsCount,
    /// [`vring_num_max`](super::VhostHandle::vring_num_max).
    GetVringNum,
    /// [`vring_size`](super::VhostHandle::vring_size).
    GetVringSize { queue: u16 },
    /// [`set_vring_num`](super::VhostHandle::set_vring_num).
    SetVringNum { queue: u16, size: u16 },
    /// [`set_vring_addr`](super::VhostHandle::set_vring_addr).
    SetVringAddr { queue: u16, address: QueueAddress },
    /// [`vring_base`](super::VhostHandle::vring_base).
    GetVringBase { queue: u16 },
    /// [`set_vring_base`](super::VhostHandle::set_vring_base).
    SetVringBase { queue: u16, state: QueueState },
    /// [`enable_vring`](super::VhostHandle::enable_vring).
    EnableVring { queue: u16 },
    /// [`disable_vring`](super::VhostHandle::disable_vring).
    DisableVring { queue: u16 },
    /// [`set_vring_kick`](super::VhostHandle::set_vring_kick).
    SetVringKick {
        queue: u16,
        event: Option<Arc<Event>>,
    },
    /// [`set_vring_call`](super::VhostHandle::set_vring_call).
    SetVringCall {
        queue: u16,
        event: Option<Arc<Event>>,
    },
    /// [`set_vring_err`](super::VhostHandle::set_vring_err).
    SetVringErr {
        queue: u16,
        event: Option<Arc<Event>>,
    },
    /// [`group_count`](super::VhostHandle::group_count).
    GetGroupNum,
    /// [`address_space_count`](super::VhostHandle::address_space_count).
    GetAsNum,
    /// [`vring_group`](super::VhostHandle::vring_group).
    GetVringGroup { queue: u16 },
    /// [`vring_desc_group`](super::VhostHandle::vring_desc_group).
    GetVringDescGroup { queue: u16 },
    /// [`set_group_asid`](super::VhostHandle::set_group_asid).
    SetGroupAsid { group: u16, asid: u16 },
    /// [`iova_range`](super::VhostHandle::iova_range).
    GetIovaRange,
    /// [`suspend`](super::VhostHandle::suspend).
    Suspend,
    /// [`resume`](super::VhostHandle::resume).
    Resume,
    /// [`start_log`](super::VhostHandle::start_log).
    StartLog(DirtyLog),
    /// [`stop_log`](super::VhostHandle::stop_log).
    StopLog,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It has been done.
    Done,
    /// Features of the device.
    Features(Features),
    /// Features of the protocol.
    BackendFeatures(BackendFeatures),
    /// An id of the device.
    Id(u32),
    /// The device status.
    Status(DeviceStatus),
    /// A part of the configuration space.
    Config(Vec<u8>),
    /// How many bytes, queues, groups or address spaces there are.
    Count(u32),
    /// How many entries a queue has.
    VringSize(u16),
    /// Where a queue stands.
    VringBase(QueueState),
    /// A group of queues.
    Group(u16),
    /// The addresses that the device can use.
    IovaRange(IovaRange),
}
