//! A vDPA device as the transport of a virtio device: every call goes straight on.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::device::{AttachError, Attachment, VdpaClaim};
use vdpa::dma::{Isolation, MapTarget, Owner, Trust};
use vdpa::ops::{Abilities, OpError, QueueAddress, QueueState};
use vdpa::platform::{BoxFuture, Callback};
use vdpa::{Features, Node, Platform};
use virtio::DeviceStatus;
use virtq::{Doorbell, Event};

use crate::Transport;

/// The way over a vDPA device, which the virtio device has to itself.
#[derive(Debug)]
pub(super) struct VdpaTransport {
    device: VdpaClaim,
    attachment: Arc<Attachment>,
}

impl VdpaTransport {
    /// Resets the device and takes the right to its memory for the kernel.
    pub(super) async fn open(device: VdpaClaim) -> Result<Arc<Self>, OpError> {
        device.reset().await?;
        // The kernel trusts its drivers, whatever stands between the device and the memory.
        let attachment = device.attach(Owner::Kernel, Trust::Isolated);
        let attachment = attachment.map_err(|error| {
            log::warn!("{}: {error}", device.node().path());
            match error {
                AttachError::Taken(_) | AttachError::NoIsolation | AttachError::NotOwner => {
                    OpError::NotOwner
                }
                AttachError::WrongState => OpError::WrongState,
                AttachError::Gone => OpError::Gone,
                AttachError::Device(error) => error,
            }
        })?;
        Ok(Arc::new(Self { device, attachment }))
    }
}

// SAFETY: each call is the device's.
unsafe impl Transport for VdpaTransport {
    fn node(&self) -> &Arc<Node> {
        self.device.node()
    }

    fn map_target(&self) -> Arc<dyn MapTarget> {
        Arc::clone(&self.attachment) as Arc<dyn MapTarget>
    }

    fn platform(&self) -> &Arc<dyn Platform> {
        self.device.platform()
    }

    fn device_type(&self) -> u32 {
        self.device.device_type()
    }

    fn vendor_id(&self) -> u32 {
        self.device.vendor_id()
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = self.device.abilities();
        // What the platform translates is no business of the device's reset.
        if self.device.isolation() != Isolation::OnChip {
            abilities |= Abilities::PERSISTENT_MAPS;
        }
        abilities
    }

    fn device_features(&self) -> Result<Features, OpError> {
        self.device.device_features()
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        self.device.set_driver_features(features)
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        self.device.status()
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.device.set_status(status))
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.device.reset())
    }

    fn is_lost(&self) -> bool {
        self.device.is_lost()
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.device.suspend())
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.device.resume())
    }

    fn config_size(&self) -> Result<u32, OpError> {
        self.device.config_size()
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.device.read_config(offset, bytes)
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.device.write_config(offset, bytes)
    }

    fn set_config_event(&self, event: Arc<Event>) -> Result<(), OpError> {
        self.device
            .set_config_callback(Some(Callback::event(event)))
    }

    fn queue_count(&self) -> u16 {
        self.device.queue_count()
    }

    fn queue_size_limits(&self, queue: u16) -> Result<(u16, u16), OpError> {
        self.device.queue_size_limits(queue)
    }

    fn queue_align(&self) -> usize {
        self.device.queue_align()
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        self.device.set_queue_size(queue, size)
    }

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        // SAFETY: the caller vouches for the rings, and the device is this transport's.
        unsafe { self.device.set_queue_address(queue, address) }
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        self.device.set_queue_state(queue, state)
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(self.device.queue_state(queue))
    }

    fn set_queue_event(&self, queue: u16, event: Option<Arc<Event>>) -> Result<(), OpError> {
        self.device
            .set_queue_callback(queue, event.map(Callback::event))
    }

    fn start_queue(&self, queue: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.device.start_queue(queue))
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        self.device.doorbell(queue)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // A device that is not at rest keeps what it can reach until it is.
            let _ = self.attachment.detach().await;
        })
    }
}
