//! Whether a device may still touch the memory that was lent to it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// "The device may touch its memory": raised before the device is allowed to run (`DRIVER_OK`), and
/// lowered only when it has confirmed a reset.
///
/// While it is held, dropping a queue leaks the ring and the chains in flight: memory that is lost is
/// better than memory that a device overwrites after somebody else got it.
#[derive(Debug, Default)]
pub struct DeviceHold(AtomicBool);

impl DeviceHold {
    /// A hold that is not raised.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The device may touch its memory from now on.
    pub fn hold(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// The device has stopped for good.
    pub fn release(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether the device may touch its memory.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
