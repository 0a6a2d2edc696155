//! What can be asked about a device's queues.

use alloc::vec::Vec;

use crate::ops::{NotificationArea, OpError, VendorCounter};
use crate::platform::InterruptMessage;

use super::VdpaDevice;

impl VdpaDevice {
    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        self.ops.queue_count()
    }

    /// The smallest and the largest size that the queue can have.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    pub fn queue_size_limits(&self, queue: u16) -> Result<(u16, u16), OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        Ok((self.ops.queue_size_min(), self.ops.queue_size_max(queue)))
    }

    /// How many entries the queue has, or could have at most as long as nobody has said.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    pub fn queue_size(&self, queue: u16) -> Result<u16, OpError> {
        self.present()?;
        let configured = self.session.lock().size(queue)?;
        Ok(configured.unwrap_or_else(|| self.ops.queue_size_max(queue)))
    }

    /// The alignment that the parts of a queue need, in bytes, if above the specification's.
    #[must_use]
    pub fn queue_align(&self) -> usize {
        self.ops.queue_align()
    }

    /// Whether the device is using the queue, as the device says.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; whatever the device answers.
    pub fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        self.ops.queue_ready(queue)
    }

    /// Where the doorbell of the queue lies, if it can be given away: nothing but doorbells of this
    /// queue lie in that area.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    pub fn notification_area(&self, queue: u16) -> Result<Option<NotificationArea>, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        Ok(self.ops.notification_area(queue))
    }

    /// The interrupt message that the device sends for this queue alone, if there is one. It does
    /// not change between `DRIVER_OK` and the next reset.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    pub fn queue_interrupt(&self, queue: u16) -> Result<Option<InterruptMessage>, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        Ok(self.ops.queue_interrupt(queue))
    }

    /// What the device has counted for the queue since it was made, in any state.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; [`OpError::Unsupported`], if it does not
    /// count.
    pub fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        self.ops.queue_statistics(queue)
    }
}
