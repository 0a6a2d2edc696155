//! The task that reads a device's status when its configuration interrupt has come, and now and
//! then.
//!
//! A device that needs a reset says so through that interrupt (VIRTIO 1.2, 2.1.2), and the handler
//! may only wake. So a task looks, and tells the driver and the tasks that wait for a queue. A
//! device that is suddenly there no more says nothing at all, and requests there would wait for
//! ever.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use embassy_futures::select::{Either, select};
use vdpa::Platform;
use vdpa::ops::OpError;
use virtio::DeviceStatus;
use virtq::Event;

use super::status::RUNNING;
use super::{VirtioDevice, condition};

/// How often a device that says nothing is asked.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

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
        let platform = Arc::clone(device.platform());
        device
            .platform()
            .spawn(device.node().name(), Box::pin(self.run(weak, platform)));
    }

    async fn run(self: Arc<Self>, device: Weak<VirtioDevice>, platform: Arc<dyn Platform>) {
        loop {
            let told = self.event.wait();
            let reason = match select(told, platform.sleep(ASK_INTERVAL)).await {
                Either::First(()) => Reason::Told,
                Either::Second(()) => Reason::Silence,
            };
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            let Some(device) = device.upgrade() else {
                return;
            };
            if device.look(reason).await == Look::Over {
                return;
            }
        }
    }
}

/// Why the task looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Told,
    Silence,
}

/// Whether there is more to watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Again,
    Over,
}

impl VirtioDevice {
    /// Finds out what the configuration interrupt was about, or the silence.
    async fn look(&self, reason: Reason) -> Look {
        if self.check().is_ok() {
            match (self.transport().and_then(|way| way.status()), reason) {
                (Ok(status), _) if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) => {
                    if self.worsen(condition::BROKEN) {
                        log::error!("{}: the device asks for a reset", self.node.path());
                    }
                }
                (Ok(_), Reason::Told) => {
                    self.config_event.raise();
                    return Look::Again;
                }
                (Err(OpError::Gone), _) | (Err(_), Reason::Told) => {
                    if self.worsen(condition::GONE) {
                        log::error!("{}: the device is gone", self.node.path());
                    }
                }
                // It rests, or somebody is about to move it.
                (Ok(_) | Err(_), Reason::Silence) => return Look::Again,
            }
        }
        let _turn = self.turn.lock().await;
        // Unless it has been reset meanwhile.
        if self.check() == Err(OpError::Broken)
            && let Ok(transport) = self.transport()
        {
            // The device may be beyond answering; the reset that follows deals with that.
            let _ = transport.set_status(RUNNING | DeviceStatus::FAILED).await;
        }
        Look::Over
    }
}
