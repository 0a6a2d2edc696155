//! The operations on a device's queues, with their checks.

use virtq::Doorbell;

use crate::ops::{OpError, QueueAddress, QueueState};
use crate::platform::Callback;

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

    /// The alignment that the parts of a queue need, in bytes, if above the specification's.
    #[must_use]
    pub fn queue_align(&self) -> usize {
        self.ops.queue_align()
    }

    /// Sets how many entries the queue has.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the size is outside the limits or no power of two;
    /// [`OpError::WrongState`], if this is not the time to set up the queue; whatever the device answers.
    pub fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        self.present()?;
        let mut session = self.session.lock();
        session.check_set_up(queue)?;
        session.check_size(
            size,
            self.ops.queue_size_min(),
            self.ops.queue_size_max(queue),
        )?;
        self.ops.set_queue_size(queue, size)?;
        session.set_size(queue, size);
        Ok(())
    }

    /// Sets where the queue lies.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if this is not the time to set up the queue; whatever the device answers.
    pub fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        self.present()?;
        let mut session = self.session.lock();
        session.check_set_up(queue)?;
        self.ops.set_queue_address(queue, address)?;
        session.set_has_address(queue);
        Ok(())
    }

    /// Sets where the queue starts.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if this is not the time to set up the queue; whatever the device answers.
    pub fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        self.present()?;
        self.session.lock().check_set_up(queue)?;
        self.ops.set_queue_state(queue, state)
    }

    /// What to call when the queue has used buffers; `None` for a queue that is polled.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if this is not the time to set up the queue.
    pub fn set_queue_callback(
        &self,
        queue: u16,
        callback: Option<Callback>,
    ) -> Result<(), OpError> {
        self.present()?;
        self.session.lock().check_set_up(queue)?;
        self.ops.set_queue_callback(queue, callback);
        Ok(())
    }

    /// Lets the device use the queue.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if the queue is not set up completely or this is not the time to;
    /// whatever the device answers.
    pub async fn start_queue(&self, queue: u16) -> Result<(), OpError> {
        let _turn = self.turn.take().await;
        self.present()?;
        {
            let mut session = self.session.lock();
            session.check_start(queue)?;
            // From here on the device may use the queue, even if this future is dropped.
            session.set_ready(queue, true);
        }
        let result = self.ops.set_queue_ready(queue, true).await;
        if result.is_err() && self.ops.queue_ready(queue) == Ok(false) {
            self.session.lock().set_ready(queue, false);
        }
        result
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

    /// How the driver notifies the queue.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; whatever the device answers.
    pub fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        self.ops.doorbell(queue)
    }
}
