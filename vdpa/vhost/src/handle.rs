//! What a client holds: one device, to itself.

mod dispatch;
mod log;
mod spaces;
mod vrings;

use alloc::sync::Arc;

use vdpa::ops::OpError;
use vdpa::platform::Callback;
use vdpa::{Features, Node};
use virtio::DeviceStatus;
use virtq::Event;

use super::client::Client;
use super::error::frozen;
use super::vhost_node::VhostNode;
use super::worker_channel::Command;
use super::{BackendFeatures, OpenOptions, VhostError};

/// A device that a client has opened.
///
/// Every request may answer [`VhostError::HungUp`], after the device has been taken away. What may
/// wait for the device is done by a task of the shim: a future that is dropped half-way stops
/// nothing that has begun.
///
/// To drop the handle closes the device too, some time later.
#[derive(Debug)]
pub struct VhostHandle {
    vhost_node: Arc<VhostNode>,
    client: Arc<Client>,
}

impl VhostHandle {
    /// Opens the device for a client: it is reset and becomes the client's.
    pub(super) async fn open(
        vhost_node: Arc<VhostNode>,
        options: OpenOptions,
    ) -> Result<Self, VhostError> {
        let client = vhost_node.admit(options)?;
        let handle = Self { vhost_node, client };
        match handle.client.channel.carry_out(Command::Open).await {
            Ok(()) => Ok(handle),
            Err(error) => {
                // Nothing has been set up that could fail to be taken down.
                let _ = handle.close().await;
                Err(error)
            }
        }
    }

    /// The device's place in the device tree, which bears its name.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        self.vhost_node.node()
    }

    /// Closes the device, and waits until it is free for the next client.
    ///
    /// # Errors
    /// [`VhostError::Timeout`], if the device does not come out of its reset: it may still use what
    /// was mapped, which stays allocated.
    pub async fn close(self) -> Result<(), VhostError> {
        self.client.channel.end();
        self.client.channel.wait_for_end().await
    }

    /// Raised when the device has been taken away.
    #[must_use]
    pub fn hang_up(&self) -> &Arc<Event> {
        &self.client.hang_up
    }

    /// Whether the device has been taken away.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        self.client.is_hung_up()
    }

    /// Says that the client is going to set up queues and memory. Requests about these need it
    /// ([`VhostError::NoOwner`]).
    ///
    /// # Errors
    /// [`VhostError::Busy`], if it has been said.
    pub fn set_owner(&self) -> Result<(), VhostError> {
        self.client.with(|state| {
            if state.has_owner {
                return Err(VhostError::Busy);
            }
            state.has_owner = true;
            Ok(())
        })
    }

    /// The features that the device offers.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn features(&self) -> Result<Features, VhostError> {
        self.client
            .with(|_| Ok(self.client.device.device_features()?))
    }

    /// Says which features the client uses.
    ///
    /// # Errors
    /// [`VhostError::Busy`] after `FEATURES_OK`; [`VhostError::Invalid`], if one is not offered;
    /// [`VhostError::Unsupported`] for `NOTIFICATION_DATA` together with a kick event, which cannot
    /// carry any; whatever the device answers.
    pub fn set_features(&self, features: Features) -> Result<(), VhostError> {
        self.client.with(|state| {
            let kicks = state.vrings.iter().any(|vring| vring.kick.is_some());
            if kicks && features.contains(virtio::F::NOTIFICATION_DATA) {
                return Err(VhostError::Unsupported);
            }
            let device = &self.client.device;
            device.set_driver_features(features).map_err(frozen)?;
            state.features = features;
            Ok(())
        })
    }

    /// What client and shim can agree on besides the virtio features.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn backend_features(&self) -> Result<BackendFeatures, VhostError> {
        self.client.with(|_| Ok(self.client.offered))
    }

    /// Says which of these the client uses; the last word counts.
    ///
    /// # Errors
    /// [`VhostError::Unsupported`], if one is not offered; [`VhostError::Invalid`] for `DESC_ASID`
    /// without `IOTLB_ASID`.
    pub fn set_backend_features(&self, features: BackendFeatures) -> Result<(), VhostError> {
        self.client.with(|state| {
            features.check(self.client.offered)?;
            state.backend = features;
            Ok(())
        })
    }

    /// The virtio device type (VIRTIO 1.2, section 5).
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn device_id(&self) -> Result<u32, VhostError> {
        self.client.with(|_| Ok(self.client.device.device_type()))
    }

    /// Who made the device.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn vendor_id(&self) -> Result<u32, VhostError> {
        self.client.with(|_| Ok(self.client.device.vendor_id()))
    }

    /// The device status, as the device has it.
    ///
    /// # Errors
    /// Whatever the device answers.
    pub fn status(&self) -> Result<DeviceStatus, VhostError> {
        self.client.with(|_| Ok(self.client.device.status()?))
    }

    /// Adds bits to the device status, or resets the device if `status` is empty.
    ///
    /// A reset ends an open batch, as its end would, and makes the doorbells that have been handed
    /// out dead. What is mapped stays if `IOTLB_PERSIST` has been acknowledged; otherwise it goes.
    /// The client's events stay.
    ///
    /// # Errors
    /// [`VhostError::Invalid`], if a bit is taken away or is not the driver's to set;
    /// [`VhostError::WrongState`], if `DRIVER_OK` comes before `FEATURES_OK`;
    /// [`VhostError::FeaturesRefused`]; whatever else the device answers, of which
    /// [`VhostError::OutOfResources`] is about interrupts.
    pub async fn set_status(&self, status: DeviceStatus) -> Result<(), VhostError> {
        self.client
            .channel
            .carry_out(Command::SetStatus(status))
            .await
    }

    /// The size of the configuration space in bytes.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn config_size(&self) -> Result<u32, VhostError> {
        self.client.with(|_| Ok(self.client.device.config_size()?))
    }

    /// Reads from the configuration space; all bytes are of one moment.
    ///
    /// # Errors
    /// [`VhostError::NoSuchConfig`], if the range is empty or does not lie inside; whatever the
    /// device answers.
    pub fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), VhostError> {
        if bytes.is_empty() {
            return Err(VhostError::NoSuchConfig);
        }
        // Reading can take a while and does no harm to the next client, so nothing is locked.
        if self.is_hung_up() {
            return Err(VhostError::HungUp);
        }
        let device = &self.client.device;
        device.read_config(offset, bytes).map_err(config_error)
    }

    /// Writes to the configuration space.
    ///
    /// # Errors
    /// As for [`config`](Self::config).
    pub fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<(), VhostError> {
        if bytes.is_empty() {
            return Err(VhostError::NoSuchConfig);
        }
        let device = &self.client.device;
        self.client
            .with(|_| device.write_config(offset, bytes).map_err(config_error))
    }

    /// Which event to raise when the configuration space has changed or the device needs a reset.
    /// It survives a reset.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn set_config_call(&self, event: Option<Arc<Event>>) -> Result<(), VhostError> {
        self.client.with(|state| {
            let callback = event.clone().map(Callback::event);
            self.client.device.set_config_callback(callback)?;
            state.config_call = event;
            Ok(())
        })
    }

    /// Stops the device without forgetting anything: it touches no queue any more, and where its
    /// queues stand can be read. A device that does not run has nothing to stop.
    ///
    /// # Errors
    /// [`VhostError::Unsupported`], if it can only be stopped by a reset; [`VhostError::Timeout`].
    pub async fn suspend(&self) -> Result<(), VhostError> {
        self.client.channel.carry_out(Command::Suspend).await
    }

    /// Lets a suspended device go on, also with what it has been kicked for meanwhile.
    ///
    /// # Errors
    /// As for [`suspend`](Self::suspend).
    pub async fn resume(&self) -> Result<(), VhostError> {
        self.client.channel.carry_out(Command::Resume).await
    }
}

impl Drop for VhostHandle {
    fn drop(&mut self) {
        self.client.channel.end();
    }
}

fn config_error(error: OpError) -> VhostError {
    match error {
        OpError::OutOfRange => VhostError::NoSuchConfig,
        other => other.into(),
    }
}
