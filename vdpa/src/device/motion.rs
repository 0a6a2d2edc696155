//! Stopping a device without forgetting anything, and letting it go on.
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaDevice;
//! # async fn attack(device: &VdpaDevice) {
//! device.suspend().await;
//! # }
//! ```

use alloc::boxed::Box;

use crate::bus::Claim;
use crate::ops::{Abilities, OpError};
use crate::platform::BoxFuture;

use super::VdpaDevice;
use super::session::Motion;

impl VdpaDevice {
    /// Whether the device has been suspended. A reset ends that.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn is_suspended(&self) -> Result<bool, OpError> {
        self.present()?;
        Ok(self.session.lock().motion() == Motion::Suspended)
    }
}

impl Claim<VdpaDevice> {
    /// Stops the device and waits until it touches no queue any more: it has finished the
    /// descriptors that it had taken, or put them back. Everything that has been set stays.
    /// Suspended twice, it stays suspended.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if it has not been started; [`OpError::Unsupported`], if it can
    /// only be stopped by a reset; [`OpError::Timeout`], if it does not come to rest.
    pub fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.change(Abilities::SUSPEND, Motion::Suspended))
    }

    /// Lets a suspended device go on, also with what it has been notified of meanwhile.
    ///
    /// # Errors
    /// As for [`suspend`](Self::suspend).
    pub fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.change(Abilities::RESUME, Motion::Running))
    }

    async fn change(&self, ability: Abilities, to: Motion) -> Result<(), OpError> {
        let _turn = self.turn.lock().await;
        self.usable()?;
        if !self.abilities().contains(ability) {
            return Err(OpError::Unsupported);
        }
        {
            let mut session = self.session.lock();
            session.check_motion()?;
            if session.motion() == to {
                return Ok(());
            }
            // If the device does not answer or this future is dropped, nobody knows.
            session.set_motion(Motion::Unknown);
        }
        match to {
            Motion::Suspended => self.in_time(self.ops.suspend()).await?,
            _ => self.in_time(self.ops.resume()).await?,
        }
        if to == Motion::Suspended {
            self.mark_rings(None);
        }
        self.session.lock().set_motion(to);
        Ok(())
    }
}
