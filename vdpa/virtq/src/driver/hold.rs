//! Whether a device may still touch the memory that was lent to it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// "The device may touch its memory": raised before the device is allowed to run (`DRIVER_OK`), and
/// lowered only when it has confirmed a reset.
///
/// While it is held, dropping a queue leaks the ring and the chains in flight: memory that is lost
/// is better than memory that a device overwrites after somebody else got it.
#[derive(Debug, Default)]
pub struct DeviceHold {
    held: AtomicBool,
    device: Option<Arc<Self>>,
}

impl DeviceHold {
    /// A hold that is not raised.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A hold for one queue of a device, for queues that can be reset one by one
    /// (`VIRTIO_F_RING_RESET`): held while it and the device's own hold are.
    #[must_use]
    pub fn of_queue(device: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicBool::new(true),
            device: Some(Arc::clone(device)),
        })
    }

    /// The device may touch its memory from now on.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// The device, or the queue, has stopped for good.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// Whether the device may touch its memory.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let above = self.device.as_ref().is_none_or(|device| device.is_held());
        above && self.held.load(Ordering::Acquire)
    }
}
