//! What only the owner of a device can do with it: negotiate, start and reset it.
//!
//! A device belongs to the driver that a bind has given its [`VdpaClaim`](super::VdpaClaim) to.
//! Every operation that changes the device is one of the claim's, here and in the files beside, and
//! answers [`OpError::NotOwner`] once the claim has ended. A reference alone allows to look:
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaBus;
//! # async fn attack(bus: &VdpaBus) {
//! for device in bus.devices() {
//!     device.reset().await;
//! }
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaDevice;
//! # async fn attack(device: &VdpaDevice) {
//! device.set_status(virtio::DeviceStatus::ACKNOWLEDGE).await;
//! # }
//! ```

use alloc::boxed::Box;

use spin::MutexGuard;
use virtio::DeviceStatus;

use crate::Features;
use crate::bus::Claim;
use crate::dma::{Isolation, Owner};
use crate::ops::OpError;
use crate::platform::BoxFuture;

use super::VdpaDevice;
use super::session::Session;

impl Claim<VdpaDevice> {
    /// Says which of the offered features will be used. They are fixed once `FEATURES_OK` is set.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if one is not offered; [`OpError::WrongState`] after `FEATURES_OK`;
    /// whatever the device answers.
    pub fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        let mut session = self.session_in_use()?;
        session.check_features(self.ops.device_features(), features)?;
        session.touch();
        self.ops.set_driver_features(features)?;
        session.set_features(features);
        Ok(())
    }

    /// Adds bits to the device status. [`reset`](Self::reset) is the only way to take bits away.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if a bit is taken away or is not the driver's to set;
    /// [`OpError::WrongState`], if `DRIVER_OK` comes before `FEATURES_OK`;
    /// [`OpError::FeaturesRefused`], if the device does not keep `FEATURES_OK`; whatever it
    /// answers.
    pub fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.usable()?;
            let before = {
                let mut session = self.session.lock();
                session.check_status(status)?;
                if status.contains(DeviceStatus::FEATURES_OK) {
                    self.check_translation(session.features())?;
                }
                session.ask_status(status);
                session.status()
            };
            let result = self.write_status(before, status).await;
            // If this future is dropped before, whatever the status asked for stays ruled out.
            let outcome = if result.is_ok() { status } else { before };
            self.session.lock().set_status(outcome);
            result
        })
    }

    /// A device behind an IOMMU may use the platform's addresses if its driver does not accept
    /// `ACCESS_PLATFORM` (VIRTIO 1.2, 6.1), and a client is to have no others than its own.
    fn check_translation(&self, accepted: Features) -> Result<(), OpError> {
        let is_confined =
            self.owner() == Some(Owner::Client) && self.isolation() == Isolation::Iommu;
        if is_confined && !accepted.contains(virtio::F::ACCESS_PLATFORM) {
            return Err(OpError::FeaturesRefused);
        }
        Ok(())
    }

    async fn write_status(&self, before: DeviceStatus, to: DeviceStatus) -> Result<(), OpError> {
        self.in_time(self.ops.set_status(to)).await?;
        let added = to.difference(before);
        // VIRTIO 1.2, 3.1.1, step 6.
        if added.contains(DeviceStatus::FEATURES_OK)
            && !self.ops.status()?.contains(DeviceStatus::FEATURES_OK)
        {
            return Err(OpError::FeaturesRefused);
        }
        Ok(())
    }

    /// Resets the device: it stops every access to memory, its queues are down, its callbacks are
    /// cleared and its status is 0. Still possible while the device is being taken off the bus.
    ///
    /// # Errors
    /// [`OpError::Gone`]; [`OpError::Timeout`], if the device may still use its memory; then
    /// nothing but another reset is possible.
    pub fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            if self.is_gone() {
                return Err(OpError::Gone);
            }
            self.owned()?;
            self.reset_in_turn().await
        })
    }

    /// Queues down, callbacks cleared, reset, as the bus does when the claim has ended: for a
    /// driver that lends the device to one user after the other. A device that is as a reset has
    /// left it stays so.
    pub fn quiesce(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.is_valid() {
                self.bring_to_rest().await;
            }
        })
    }

    /// Whether the device is there and still the driver's.
    pub(super) fn usable(&self) -> Result<(), OpError> {
        self.present()?;
        self.owned()
    }

    fn owned(&self) -> Result<(), OpError> {
        self.is_valid().then_some(()).ok_or(OpError::NotOwner)
    }

    /// The state of a usable device. A claim that ends meanwhile finds what is done under this lock
    /// done.
    pub(super) fn session_in_use(&self) -> Result<MutexGuard<'_, Session>, OpError> {
        let session = self.session.lock();
        self.usable()?;
        Ok(session)
    }
}
