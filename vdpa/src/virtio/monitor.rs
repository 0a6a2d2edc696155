//! The task that reads a device's status when its configuration interrupt has come.
//!
//! A device that needs a reset says so through that interrupt (VIRTIO 1.2, 2.1.2), and the handler may
//! only wake. So a task looks, and tells the driver and whoever waits for a queue.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};

use virtio::DeviceStatus;
use virtq::Event;

use crate::ops::OpError;

use super::{VirtioDevice, condition};

/// What wakes the task, and what ends it.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    event: Arc<Event>,
    stopped: AtomicBool,
}

impl Monitor {
    /// What the device raises when something has changed.
    pub(super) fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// The device has been reset or is gone.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.event.raise();
    }

    /// Starts the task. It keeps the monitor, not the device.
    pub(super) fn watch(self: Arc<Self>, device: &Arc<VirtioDevice>) {
        let weak = Arc::downgrade(device);
        device
            .platform()
            .spawn(device.node().name(), Box::pin(self.run(weak)));
    }

    async fn run(self: Arc<Self>, device: Weak<VirtioDevice>) {
        loop {
            self.event.wait().await;
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            let Some(device) = device.upgrade() else {
                return;
            };
            if device.look().await == Look::Over {
                return;
            }
        }
    }
}

/// Whether there is more to watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Again,
    Over,
}

impl VirtioDevice {
    /// Finds out what the configuration interrupt was about.
    async fn look(&self) -> Look {
        if self.check().is_ok() {
            match self.transport().and_then(|way| way.status()) {
                Ok(status) if !status.contains(DeviceStatus::DEVICE_NEEDS_RESET) => {
                    self.config_event.raise();
                    return Look::Again;
                }
                Ok(_) => {
                    if self.worsen(condition::BROKEN) {
                        log::error!("{}: the device asks for a reset", self.node.path());
                    }
                }
                Err(_) => {
                    self.worsen(condition::GONE);
                }
            }
        }
        let _turn = self.turn.take().await;
        // Unless it has been reset meanwhile.
        if self.check() == Err(OpError::Broken)
            && let Ok(transport) = self.transport()
        {
            // The device may be beyond answering; the reset that follows deals with that.
            let _ = transport
                .set_status(super::bring_up::running() | DeviceStatus::FAILED)
                .await;
        }
        Look::Over
    }
}
