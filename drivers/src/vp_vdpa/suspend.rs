//! Suspending the device, where the function can do that.
//!
//! A function without `VIRTIO_F_SUSPEND` can be stopped by a reset alone: it forgets where its queues were,
//! and nothing here pretends otherwise. One with it finishes every buffer that it has taken before it is
//! suspended, so the used index of a split queue tells where it stands.
//!
//! Source: VIRTIO 1.4, 2.1 and 3.4 (device suspend).

use vdpa::VdpaOps;
use vdpa::ops::OpError;
use virtio::DeviceStatus;

use super::parent::{Parent, wait};

impl Parent {
    /// The device status as the register has it.
    pub(super) fn raw_status(&self) -> Result<DeviceStatus, OpError> {
        self.virtio.common().status().ok_or(OpError::Gone)
    }

    pub(super) async fn suspend_device(&self) -> Result<(), OpError> {
        self.write_and_wait(DeviceStatus::SUSPEND, |status| {
            status.contains(DeviceStatus::SUSPEND) && !status.contains(DeviceStatus::DRIVER_OK)
        })
        .await
    }

    pub(super) async fn resume_device(&self) -> Result<(), OpError> {
        self.write_and_wait(DeviceStatus::DRIVER_OK, |status| {
            status.contains(DeviceStatus::DRIVER_OK) && !status.contains(DeviceStatus::SUSPEND)
        })
        .await?;
        // It must not be notified while it is suspended, so it may not have heard of what came since.
        for queue in (0..self.queue_count()).filter(|queue| self.queue_ready(*queue) == Ok(true)) {
            self.doorbell(queue)?.ring(0);
        }
        Ok(())
    }

    /// Adds a bit to the status and waits until the device has done what it asks for.
    async fn write_and_wait(
        &self,
        bit: DeviceStatus,
        done: impl Fn(DeviceStatus) -> bool,
    ) -> Result<(), OpError> {
        if !self.can_suspend {
            return Err(OpError::Unsupported);
        }
        self.virtio.common().set_status(self.raw_status()? | bit);
        wait(&*self.platform, || match self.raw_status() {
            Err(error) => Some(Err(error)),
            Ok(status) if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) => {
                Some(Err(OpError::Broken))
            }
            Ok(status) => done(status).then_some(Ok(())),
        })
        .await
    }
}
