//! Registers that tell where a queue stands, which virtio has none for.

use vdpa::Features;
use vdpa::ops::{DirtyLog, OpError};

/// What a function has beside the registers of virtio: where each queue stands, and a log of the
/// pages that the device writes.
///
/// A function that has them stops a queue when 0 is written to `queue_enable`, which a driver of
/// plain virtio must not do (VIRTIO 1.2, 4.1.4.3.2), and has stopped it when 0 is read there.
/// Queues are split ones.
pub(crate) trait StateRegisters: Send + Sync {
    /// Whether the queue, which is enabled, can be stopped without losing what the device has
    /// begun.
    fn is_drained(&self, queue: u16) -> bool;

    /// Where a queue of this size goes on, which has been enabled and has stopped: the next
    /// available index.
    ///
    /// # Errors
    /// [`OpError::Broken`], if what is there makes no sense; [`OpError::Gone`] is for the caller to
    /// find out.
    fn position(&self, queue: u16, size: u16) -> Result<u16, OpError>;

    /// Sets where a queue goes on that is about to be enabled.
    ///
    /// # Errors
    /// [`OpError::Broken`], if the register does not take it.
    fn set_position(&self, queue: u16, avail_index: u16) -> Result<(), OpError>;

    /// Tells the device which queues run as soon as the next one is enabled, that one included.
    fn announce(&self, queues: &[u16], features: Features);

    /// As [`VdpaOps::start_dirty_log`](vdpa::VdpaOps::start_dirty_log).
    fn start_log(&self, log: DirtyLog) -> Result<(), OpError>;

    /// As [`VdpaOps::stop_dirty_log`](vdpa::VdpaOps::stop_dirty_log).
    fn stop_log(&self) -> Result<(), OpError>;
}
