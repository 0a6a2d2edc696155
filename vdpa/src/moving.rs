//! Moving a device that runs, with its driver and what is in flight, to another device of the bus.
//!
//! How that is done belongs to the bus driver that has the device; here is what its callers share.

use alloc::sync::Arc;

use crate::device::VdpaDevice;
use crate::ops::OpError;
use crate::platform::BoxFuture;

/// Moves what a bus driver has made of a device.
pub trait Mover: Send + Sync {
    /// Moves what runs on `from` to `to`. A user of `to` loses it before; afterwards `from` has
    /// none.
    ///
    /// # Errors
    /// [`MoveError`]: what ran goes on on `from`, if that is possible, and `to` is as it was before.
    fn move_device<'a>(
        &'a self,
        from: &'a Arc<VdpaDevice>,
        to: &'a Arc<VdpaDevice>,
    ) -> BoxFuture<'a, Result<(), MoveError>>;
}

/// Why a device was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// There is nothing to move: no such device, or it does not run.
    #[error("the device does not run")]
    NotRunning,
    /// Somebody has the new device already, or it is changing hands.
    #[error("the new device is not free")]
    NotFree,
    /// The new device is of another type.
    #[error("the new device is of another type")]
    OtherType,
    /// The new device does not offer what is in use.
    #[error("the new device lacks features that are in use")]
    LacksFeatures,
    /// The new device cannot have these queues, by number, size or alignment.
    #[error("the new device cannot have the queues that are in use")]
    LacksQueues,
    /// Its blocks have another size, or it sets narrower limits than the driver keeps to.
    #[error("the new device is configured differently")]
    OtherConfig,
    /// Notifications tell where the driver stands (`VIRTIO_F_NOTIFICATION_DATA`), so nobody else
    /// can make up for one.
    #[error("only the driver can notify the device")]
    NotificationData,
    /// The driver would have to rewind its queues, and does not.
    #[error("the driver does not rewind its queues")]
    DriverSilent,
    /// The old device did not come to rest.
    #[error("the old device does not come to rest: {0}")]
    From(OpError),
    /// The new device did not take over.
    #[error("the new device does not take over: {0}")]
    To(OpError),
}
