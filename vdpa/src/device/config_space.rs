//! The device's configuration space (VIRTIO 1.2, 2.5).
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaDevice;
//! fn attack(device: &VdpaDevice) {
//!     device.write_config(0, &[0; 6]);
//! }
//! ```

use crate::bus::Claim;
use crate::ops::OpError;
use crate::platform::Callback;

use super::VdpaDevice;

impl VdpaDevice {
    /// The size of the configuration space in bytes.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn config_size(&self) -> Result<u32, OpError> {
        self.present()?;
        Ok(self.ops.config_size())
    }

    /// Reads from the configuration space; all bytes are of one moment.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if the range does not lie inside; whatever the device answers.
    pub fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.check_config_range(offset, bytes.len())?;
        self.ops.read_config(offset, bytes)
    }

    /// A number that changes whenever the configuration space does.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn config_generation(&self) -> Result<u32, OpError> {
        self.present()?;
        Ok(self.ops.config_generation())
    }

    fn check_config_range(&self, offset: u32, len: usize) -> Result<(), OpError> {
        self.present()?;
        let len = u32::try_from(len).map_err(|_| OpError::OutOfRange)?;
        let end = offset.checked_add(len).ok_or(OpError::OutOfRange)?;
        if end <= self.ops.config_size() {
            Ok(())
        } else {
            Err(OpError::OutOfRange)
        }
    }
}

impl Claim<VdpaDevice> {
    /// Writes to the configuration space.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if the range does not lie inside; whatever the device answers.
    pub fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.usable()?;
        self.check_config_range(offset, bytes.len())?;
        self.ops.write_config(offset, bytes)
    }

    /// What to call when the configuration space has changed.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn set_config_callback(&self, callback: Option<Callback>) -> Result<(), OpError> {
        let mut session = self.session_in_use()?;
        session.touch();
        self.ops.set_config_callback(callback);
        Ok(())
    }
}
