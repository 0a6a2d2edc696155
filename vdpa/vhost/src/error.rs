//! Why a device gets no vhost node, and why a vhost request failed.

use vdpa::device::AttachError;
use vdpa::dirty::LogError;
use vdpa::ops::OpError;

/// Why clients cannot be given a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// Its virtio device type is 0.
    #[error("its virtio device type is 0")]
    NoType,
    /// It has several address spaces or groups of queues.
    #[error("the platform translates for one address space only")]
    SpaceCount,
}

/// Why a request, a message or an open failed. Each stands for one error number of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VhostError {
    /// No device has this name (`ENOENT`).
    #[error("no vhost device has this name")]
    NotFound,
    /// Another client has the device open, or the device keeps a log already; or what is to be set
    /// is fixed by now: features after `FEATURES_OK`, groups after `DRIVER_OK`, a second owner
    /// (`EBUSY`).
    #[error("in use")]
    Busy,
    /// The client speaks another version of the protocol (`EPROTO`).
    #[error("the client speaks another version of the protocol")]
    WrongVersion,
    /// The device's memory accesses are not isolated, and the client has not asked for that by name
    /// (`EACCES`).
    #[error("nothing isolates the device from memory that is not the client's")]
    NotIsolated,
    /// Devices that cannot be told apart from this one belong to somebody else (`EXDEV`).
    #[error("devices that an IOMMU cannot keep apart from this one belong to somebody else")]
    UnitTaken,
    /// The device has been taken away, for good (`ENODEV`).
    #[error("the device has been taken away")]
    HungUp,
    /// [`Request::SetOwner`](super::Request::SetOwner) comes first (`EPERM`).
    #[error("the client has not set itself as the owner")]
    NoOwner,
    /// There is no such queue (`ENOBUFS`).
    #[error("no such queue")]
    NoSuchQueue,
    /// There is no such group or address space, a value is none that the device can take, a status
    /// bit would be cleared, or a message does not fit its batch (`EINVAL`).
    #[error("invalid value")]
    Invalid,
    /// The device's status does not allow it (`EBADFD`).
    #[error("not allowed in the device's present state")]
    WrongState,
    /// The device, or this side of the protocol, does not offer it (`EOPNOTSUPP`).
    #[error("not offered")]
    Unsupported,
    /// The range of the configuration space is empty or does not exist (`E2BIG`).
    #[error("no such range of the configuration space")]
    NoSuchConfig,
    /// A range of addresses is empty (`ENODATA`).
    #[error("the address range is empty")]
    EmptyRange,
    /// A range of addresses wraps around (`EOVERFLOW`).
    #[error("the address range wraps around")]
    RangeWraps,
    /// A range lies outside the addresses that the device can use, or, where nobody translates, is
    /// not where the memory is (`ERANGE`).
    #[error("the device cannot use these addresses")]
    NotReachable,
    /// A mapping reaches beyond its memory (`EFAULT`).
    #[error("the mapping reaches beyond its memory")]
    BeyondMemory,
    /// A mapping that allows nothing (`ENOEXEC`).
    #[error("the mapping allows nothing")]
    NoPermission,
    /// A mapping overlaps another one (`EEXIST`).
    #[error("the address range overlaps one that is mapped")]
    Exists,
    /// The client's quota of mapped bytes is used up (`EDQUOT`).
    #[error("the quota of mapped memory is used up")]
    OverQuota,
    /// The client's quota of mappings is used up (`ENOSPC`).
    #[error("too many mappings")]
    TooManyMappings,
    /// Memory, interrupt vectors or room in the device ran out (`ENOMEM`).
    #[error("out of memory, interrupt vectors or room in the device")]
    OutOfResources,
    /// The device does not accept the features (`ENOTSUP`).
    #[error("the device refused the features")]
    FeaturesRefused,
    /// The device did not answer in time (`ETIMEDOUT`).
    #[error("the device did not answer in time")]
    Timeout,
    /// The device broke the protocol (`EIO`).
    #[error("the device broke the protocol")]
    Broken,
}

/// What the device answered to anything but an index or an address, which the shim checks itself.
impl From<OpError> for VhostError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Gone | OpError::NotOwner => Self::HungUp,
            OpError::Timeout => Self::Timeout,
            OpError::OutOfRange | OpError::Invalid => Self::Invalid,
            OpError::Overlap => Self::Exists,
            OpError::WrongState => Self::WrongState,
            OpError::Unsupported => Self::Unsupported,
            OpError::FeaturesRefused => Self::FeaturesRefused,
            OpError::VectorRefused | OpError::OutOfResources => Self::OutOfResources,
            OpError::Broken => Self::Broken,
        }
    }
}

impl From<LogError> for VhostError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Running => Self::Busy,
            LogError::NotRunning => Self::WrongState,
            LogError::BadRange => Self::Invalid,
            LogError::NotMapped => Self::NotReachable,
            LogError::Device(error) => error.into(),
        }
    }
}

impl From<AttachError> for VhostError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Taken(_) => Self::UnitTaken,
            AttachError::NoIsolation => Self::NotIsolated,
            AttachError::WrongState => Self::WrongState,
            AttachError::Gone | AttachError::NotOwner => Self::HungUp,
            AttachError::Device(error) => error.into(),
        }
    }
}

/// What is fixed once the status says so is busy then.
pub(super) fn frozen(error: OpError) -> VhostError {
    match error {
        OpError::WrongState => VhostError::Busy,
        other => other.into(),
    }
}
