//! A virtio device that belongs to a driver, with everything that changes it.
//!
//! A bind gives it, and it ends with that. A reference to the device alone allows to look:
//!
//! ```compile_fail,E0599
//! # async fn attack(bus: &virtio_bus::VirtioBus) {
//! for device in bus.devices() {
//!     device.reset().await;
//! }
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # async fn attack(device: &virtio_bus::VirtioDevice) {
//! device.negotiate(vdpa::Features::EMPTY, vdpa::Features::EMPTY).await;
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # async fn attack(device: &virtio_bus::VirtioDevice) {
//! let completion = virtio_bus::Completion::Polled;
//! device.create_queue::<virtq::Readable>(0, "theirs", 8, completion).await;
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! fn attack(device: &virtio_bus::VirtioDevice) {
//!     device.write_config(0, &[0; 6]);
//! }
//! ```
//!
//! ```compile_fail,E0599
//! fn attack(device: &virtio_bus::VirtioDevice) {
//!     device.mark_broken();
//! }
//! ```
//!
//! ```compile_fail,E0599
//! # async fn attack(device: &virtio_bus::VirtioDevice) {
//! device.suspend().await;
//! # }
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Deref;

use vdpa::bus::Claim;
use vdpa::ops::OpError;
use vdpa::platform::BoxFuture;

use super::VirtioDevice;

/// A virtio device that belongs to a driver: what the driver makes of the [`Claim`] that it is
/// given.
///
/// Every operation that changes the device answers [`OpError::NotOwner`] once the claim has ended.
#[derive(Debug)]
pub struct VirtioClaim(Claim<VirtioDevice>);

impl VirtioClaim {
    /// The device of a claim.
    #[must_use]
    pub fn new(claim: Claim<VirtioDevice>) -> Self {
        Self(claim)
    }

    /// Writes to the configuration space.
    ///
    /// # Errors
    /// As for [`VirtioDevice::read_config`].
    pub fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.usable()?;
        self.transport()?.write_config(offset, bytes)
    }

    /// Says that the device has violated its contract: it gets the status `FAILED`, and those who
    /// wait for it is woken. Only a [`reset`](Self::reset) makes it usable again.
    pub fn mark_broken(&self) {
        if self.0.is_valid() {
            self.give_up();
        }
    }

    /// Resets the device, after which it touches no memory. A driver calls it before it drops its
    /// queues: what is in a queue that is dropped earlier is lost, because the device might still
    /// write it.
    ///
    /// # Errors
    /// [`OpError::Gone`]; [`OpError::Timeout`]: the device may still use its memory, which stays
    /// allocated.
    pub fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.usable()?;
            self.reset_in_turn().await
        })
    }

    /// Whether the device is still the driver's.
    pub(crate) fn usable(&self) -> Result<(), OpError> {
        if self.0.is_valid() {
            return Ok(());
        }
        match self.check() {
            Err(OpError::Gone) => Err(OpError::Gone),
            _ => Err(OpError::NotOwner),
        }
    }
}

impl Deref for VirtioClaim {
    type Target = Arc<VirtioDevice>;

    fn deref(&self) -> &Arc<VirtioDevice> {
        &self.0
    }
}
