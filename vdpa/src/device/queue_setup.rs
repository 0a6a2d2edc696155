//! The operations that set up the queues of a device and start them, with their checks.
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaDevice;
//! # async fn attack(device: &VdpaDevice) {
//! device.start_queue(0).await;
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaDevice;
//! fn attack(device: &VdpaDevice) {
//!     device.doorbell(0);
//! }
//! ```

use alloc::boxed::Box;

use virtq::Doorbell;

use crate::bus::Claim;
use crate::ops::{OpError, QueueAddress, QueueState};
use crate::platform::{BoxFuture, Callback};

use super::VdpaDevice;
use super::session::Ready;

impl Claim<VdpaDevice> {
    /// Sets how many entries the queue has.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the size is outside the limits or no power of two;
    /// [`OpError::WrongState`], if this is not the time to set up the queue; whatever the device
    /// answers.
    pub fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        let mut session = self.session_in_use()?;
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
    /// # use vdpa::{device::VdpaClaim, ops::{OpError, QueueAddress}};
    /// fn attack(device: &VdpaClaim, rings: QueueAddress) -> Result<(), OpError> {
    ///     device.set_queue_address(0, rings)
    /// }
    /// ```
    ///
    /// # Safety
    /// A device reads and writes memory as the rings say that it finds there. The addresses are
    /// those of a [`Queue`](virtq::Queue), of the size, the state and the features that the device
    /// has when it uses the queue, and all of the queue's memory is the device's until the next
    /// reset. Or every address that the device reaches is mapped for it, as an
    /// [`Attachment`](super::Attachment) of a client has it.
    pub unsafe fn set_queue_address(
        &self,
        queue: u16,
        address: QueueAddress,
    ) -> Result<(), OpError> {
        let mut session = self.session_in_use()?;
        session.check_move(queue)?;
        // SAFETY: the caller vouches for the rings.
        unsafe { self.ops.set_queue_address(queue, address) }?;
        session.set_address(queue, address);
        Ok(())
    }

    /// Sets where the queue starts, or, while the device is suspended, where it goes on.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the state is not one of the ring format agreed on, or lies outside
    /// the queue; [`OpError::WrongState`], as for [`set_queue_address`](Self::set_queue_address);
    /// [`OpError::Unsupported`], if the hardware can only start afresh.
    pub fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        let mut session = self.session_in_use()?;
        session.check_move(queue)?;
        session.check_state(queue, state)?;
        self.ops.set_queue_state(queue, state)?;
        session.set_state(queue, state);
        Ok(())
    }

    /// Where the queue stands.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if it does not stand still: it is ready and the device is not
    /// suspended; [`OpError::Unsupported`], if the hardware does not tell.
    pub fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.session_in_use()?.check_still(queue)?;
            self.in_time(self.ops.queue_state(queue)).await
        })
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
        let session = self.session_in_use()?;
        session.check_set_up(queue)?;
        self.ops.set_queue_callback(queue, callback);
        Ok(())
    }

    /// Lets the device use the queue.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if the queue is not set up completely or this is not the time to;
    /// whatever the device answers.
    pub fn start_queue(&self, queue: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.usable()?;
            {
                let mut session = self.session.lock();
                session.check_start(queue)?;
                // From here on the device may use the queue, even if this future is dropped.
                session.set_ready(queue, Ready::Yes);
            }
            let result = self.in_time(self.ops.set_queue_ready(queue, true)).await;
            if result.is_err() && self.ops.queue_ready(queue) == Ok(false) {
                self.session.lock().set_ready(queue, Ready::No);
            }
            result
        })
    }

    /// Makes the device stop using the queue, and waits until it has. The queue keeps its size and
    /// its place, and can be started again: it goes on where it stood, if the device has
    /// [`Abilities::QUEUE_STATE`](crate::ops::Abilities::QUEUE_STATE), and from the start
    /// otherwise.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the hardware can stop a queue by reset alone; whatever else the
    /// device answers. Then it may still use the queue.
    pub async fn stop_queue(&self, queue: u16) -> Result<(), OpError> {
        let _turn = self.turn.lock().await;
        self.usable()?;
        if !self.session.lock().check_stop(queue)? {
            return Ok(());
        }
        self.in_time(self.ops.set_queue_ready(queue, false)).await?;
        self.mark_rings(Some(queue));
        self.session.lock().set_ready(queue, Ready::Stopped);
        Ok(())
    }

    /// How the driver notifies the queue.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; whatever the device answers.
    pub fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        self.session_in_use()?.check_queue(queue)?;
        self.ops.doorbell(queue)
    }
}
