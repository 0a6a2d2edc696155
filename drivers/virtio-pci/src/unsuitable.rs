//! Why a function does not become a vDPA device.

use pci::{MsixError, ResourceError};

use super::function::OpenError;

/// What the drivers of this crate find amiss with a function that does answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// No row of the driver's id table describes it.
    #[error("not a virtio function")]
    NotVirtio,
    /// Its virtio device type is 0.
    #[error("a virtio function without a device type")]
    NoType,
    /// Its virtio device type is none that the cards of the driver have.
    #[error("neither a network card nor a disk")]
    Type,
    /// It cannot be had.
    #[error("the function cannot be claimed: {0}")]
    Claim(#[source] ResourceError),
    /// It has no registers that can be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its interrupts cannot be had.
    #[error("the function's MSI-X table cannot be used: {0}")]
    Msix(#[source] MsixError),
    /// It is a device of before VIRTIO 1.0.
    #[error("the function does not offer VERSION_1")]
    NoVersion1,
    /// Its addresses would not be those of the platform.
    #[error("the function does not offer ACCESS_PLATFORM")]
    NoAccessPlatform,
    /// Its queues cannot be found.
    #[error("the function has no queue")]
    NoQueue,
}
