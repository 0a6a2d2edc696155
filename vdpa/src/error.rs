//! Why an operation of a device failed.

use crate::iotlb::{Full, MapError};

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
    /// Somebody else owns the device's address space.
    #[error("somebody else owns the device's address space")]
    NotOwner,
    /// The address range overlaps one that is mapped.
    #[error("the address range overlaps one that is mapped")]
    Overlap,
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

impl From<MapError> for OpError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Overlap => Self::Overlap,
            MapError::NoPermission => Self::Invalid,
            MapError::Full(full) => full.into(),
        }
    }
}

impl From<Full> for OpError {
    fn from(_: Full) -> Self {
        Self::OutOfResources
    }
}

impl From<virtq::CreateError> for OpError {
    fn from(error: virtq::CreateError) -> Self {
        match error {
            virtq::CreateError::BadSize
            | virtq::CreateError::BadAlignment
            | virtq::CreateError::BadState => Self::Invalid,
            virtq::CreateError::Memory(_) => Self::OutOfResources,
        }
    }
}
