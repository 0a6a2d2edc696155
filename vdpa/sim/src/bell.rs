//! What wakes a device's worker: its doorbells and whatever changes the device.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use virtq::{Doorbell, Event};

/// One signal for all queues of a device. The worker looks at every queue whenever it is woken:
/// that costs a load for each, and less than a signal for each.
#[derive(Debug, Default)]
pub(super) struct Bell {
    event: Arc<Event>,
    /// Whether something else than a driver has rung.
    inside: AtomicBool,
}

impl Bell {
    /// The bell as the driver rings it.
    pub(super) fn doorbell(&self) -> Doorbell {
        Doorbell::event(Arc::clone(&self.event))
    }

    /// Wakes the worker, whatever the driver does.
    pub(super) fn ring(&self) {
        self.inside.store(true, Ordering::Release);
        self.event.raise();
    }

    /// What the worker waits for.
    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    /// Whether something else than a driver has rung and nobody has taken note of it.
    pub(super) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// Takes note of it.
    #[inline]
    pub(super) fn take_inside(&self) -> bool {
        self.is_inside() && self.inside.swap(false, Ordering::Acquire)
    }
}
