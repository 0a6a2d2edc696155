//! The operations on a device's queues, with their checks.

use alloc::vec::Vec;

use virtq::Doorbell;

use crate::ops::{NotificationArea, OpError, QueueAddress, QueueState, VendorCounter};
use crate::platform::{Callback, InterruptMessage};

use super::VdpaDevice;
use super::session::Ready;

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
    /// [`OpError::WrongState`], if this is not the time to set up the queue and the device is not
    /// suspended; whatever the device answers.
    ///
    /// Safe code does not get a device to write to an address of its choice:
    ///
    /// ```compile_fail,E0133
    /// # use vdpa::{device::VdpaDevice, ops::{OpError, QueueAddress}};
    /// fn attack(device: &VdpaDevice, rings: QueueAddress) -> Result<(), OpError> {
    ///     device.set_queue_address(0, rings)
    /// }
    /// ```
    ///
    /// # Safety
    /// A device reads and writes memory as the rings say that it finds there. The addresses are those of
    /// a [`Queue`](virtq::Queue), of the size, the state and the features that the device has when it
    /// uses the queue, and all of the queue's memory is the device's until the next reset. Or every
    /// address that the device reaches is mapped for it, as an [`Attachment`](super::Attachment)
    /// of a client has it.
    pub unsafe fn set_queue_address(
        &self,
        queue: u16,
        address: QueueAddress,
    ) -> Result<(), OpError> {
        self.present()?;
        let mut session = self.session.lock();
        session.check_move(queue)?;
        // SAFETY: the caller vouches for the rings.
        unsafe { self.ops.set_queue_address(queue, address) }?;
        session.set_address(queue, address);
        Ok(())
    }

    /// Sets where the queue starts, or, while the device is suspended, where it goes on.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the state is not one of the ring format agreed on, or lies outside the queue;
    /// [`OpError::WrongState`], as for [`set_queue_address`](Self::set_queue_address);
    /// [`OpError::Unsupported`], if the hardware can only start afresh.
    pub fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        self.present()?;
        let mut session = self.session.lock();
        session.check_move(queue)?;
        session.check_state(queue, state)?;
        self.ops.set_queue_state(queue, state)?;
        session.set_state(queue, state);
        Ok(())
    }

    /// Where the queue stands.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if it does not stand still: it is ready and the device is not suspended;
    /// [`OpError::Unsupported`], if the hardware does not tell.
    pub fn queue_state(&self, queue: u16) -> Result<QueueState, OpError> {
        self.present()?;
        self.session.lock().check_still(queue)?;
        self.ops.queue_state(queue)
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
        let _turn = self.turn.lock().await;
        self.present()?;
        {
            let mut session = self.session.lock();
            session.check_start(queue)?;
            // From here on the device may use the queue, even if this future is dropped.
            session.set_ready(queue, Ready::Yes);
        }
        let result = self.ops.set_queue_ready(queue, true).await;
        if result.is_err() && self.ops.queue_ready(queue) == Ok(false) {
            self.session.lock().set_ready(queue, Ready::No);
        }
        result
    }

    /// Makes the device stop using the queue, and waits until it has. The queue keeps its size and its place,
    /// and can be started again: it goes on where it stood, if the device has
    /// [`Abilities::QUEUE_STATE`](crate::ops::Abilities::QUEUE_STATE), and from the start otherwise.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware can stop a queue by reset alone; whatever else the
    /// device answers. Then it may still use the queue.
    pub async fn stop_queue(&self, queue: u16) -> Result<(), OpError> {
        let _turn = self.turn.lock().await;
        self.present()?;
        if !self.session.lock().check_stop(queue)? {
            return Ok(());
        }
        self.ops.set_queue_ready(queue, false).await?;
        self.mark_rings(Some(queue));
        self.session.lock().set_ready(queue, Ready::Stopped);
        Ok(())
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

    /// Where the doorbell of the queue lies, if it can be given away: nothing but doorbells of this queue lie in
    /// that area.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue.
    pub fn notification_area(&self, queue: u16) -> Result<Option<NotificationArea>, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        Ok(self.ops.notification_area(queue))
    }

    /// The interrupt message that the device sends for this queue alone, if there is one. It does not change
    /// between `DRIVER_OK` and the next reset.
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
    /// [`OpError::OutOfRange`], if there is no such queue; [`OpError::Unsupported`], if it does not count.
    pub fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        self.ops.queue_statistics(queue)
    }
}
