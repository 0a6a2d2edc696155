//! A look at the used ring from outside of its queue, for a caller that has to know how far a
//! device has come while the queue is somebody else's.

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};

use crate::dma::Region;

/// The used index of a split ring as the device writes it. It keeps the ring's memory, not the
/// queue.
#[derive(Clone)]
pub struct UsedWatch {
    index: NonNull<u16>,
    _ring: Arc<Region>,
}

// SAFETY: the watch only loads one cell of memory that it keeps, atomically.
unsafe impl Send for UsedWatch {}
// SAFETY: as for `Send`.
unsafe impl Sync for UsedWatch {}

impl UsedWatch {
    /// A watch on the used index at `index`, an aligned cell of `ring`.
    pub(super) fn new(index: NonNull<u16>, ring: Arc<Region>) -> Self {
        Self { index, _ring: ring }
    }

    /// The used index as it is in memory now, modulo 2^16 (VIRTIO 1.2, 2.7.8). It has not been
    /// checked.
    #[must_use]
    pub fn index(&self) -> u16 {
        // SAFETY: the cell lies in the ring, which is kept; all access to it, the device's too, is
        // atomic.
        let index = unsafe { AtomicU16::from_ptr(self.index.as_ptr()) };
        u16::from_le(index.load(Ordering::Acquire))
    }
}

impl fmt::Debug for UsedWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UsedWatch({})", self.index())
    }
}
