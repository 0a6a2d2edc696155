//! Suspending the device, where the function can do that.
//!
//! A function with [`StateRegisters`](super::StateRegisters) is suspended queue by queue, and
//! remembers everything else. One with `VIRTIO_F_SUSPEND` does it by itself, and finishes every
//! buffer that it has taken before, so the used index of a split queue tells where it stands. Any
//! other can be stopped by a reset alone: it forgets where its queues were, and nothing here
//! pretends otherwise.
//!
//! Source: VIRTIO 1.4, 2.1 and 3.4 (device suspend).

use vdpa::VdpaOps;
use vdpa::ops::OpError;
use vdpa::platform::Callback;
use virtio::DeviceStatus;

use super::parent::Parent;
use super::queue_state::Phase;

impl Parent {
    /// The device status as the register has it.
    pub(super) fn raw_status(&self) -> Result<DeviceStatus, OpError> {
        self.virtio.common().status().ok_or(OpError::Gone)
    }

    pub(super) async fn suspend_device(&self) -> Result<(), OpError> {
        let Some(states) = &self.states else {
            return self
                .write_and_wait(DeviceStatus::SUSPEND, |status| {
                    status.contains(DeviceStatus::SUSPEND)
                        && !status.contains(DeviceStatus::DRIVER_OK)
                })
                .await;
        };
        self.raw_status()?;
        for index in 0..self.queue_count() {
            if self.edit(index, |queue| queue.is_moving()) {
                self.halt_queue(index, &**states).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn resume_device(&self) -> Result<(), OpError> {
        if let Some(states) = &self.states {
            self.raw_status()?;
            for index in 0..self.queue_count() {
                let (phase, is_moving) = self.edit(index, |queue| (queue.phase, queue.is_moving()));
                if phase == Phase::Halted {
                    if is_moving {
                        // It was given up, and may have stopped since.
                        self.halt_queue(index, &**states).await?;
                    }
                    self.restart_queue(index)?;
                }
            }
            return Ok(());
        }
        self.write_and_wait(DeviceStatus::DRIVER_OK, |status| {
            status.contains(DeviceStatus::DRIVER_OK) && !status.contains(DeviceStatus::SUSPEND)
        })
        .await?;
        // It must not be notified while it is suspended, so it may not have heard of what came
        // since.
        for queue in (0..self.queue_count()).filter(|queue| self.queue_ready(*queue) == Ok(true)) {
            self.doorbell(queue)?.ring(0);
        }
        Ok(())
    }

    /// Starts a queue where it was halted, and makes up for what nobody was told meanwhile, in both
    /// directions.
    fn restart_queue(&self, index: u16) -> Result<(), OpError> {
        self.start_queue(index)?;
        self.doorbell(index)?.ring(0);
        let callback = self.edit(index, |queue| queue.callback.clone());
        callback.iter().for_each(Callback::call);
        Ok(())
    }

    /// Adds a bit to the status and waits until the device has done what it asks for.
    async fn write_and_wait(
        &self,
        bit: DeviceStatus,
        done: fn(DeviceStatus) -> bool,
    ) -> Result<(), OpError> {
        if !self.can_suspend {
            return Err(OpError::Unsupported);
        }
        self.virtio.common().set_status(self.raw_status()? | bit);
        self.wait(&|| match self.raw_status() {
            Err(error) => Some(Err(error)),
            Ok(status) if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) => {
                Some(Err(OpError::Broken))
            }
            Ok(status) => done(status).then_some(Ok(())),
        })
        .await
    }
}
