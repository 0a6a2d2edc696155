//! A vDPA device as the transport of a virtio device: every call goes straight on.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::Features;
use vdpa::device::{AttachError, Attachment, VdpaClaim};
use vdpa::dma::{Isolation, MapTarget, Owner, Trust};
use vdpa::ops::{Abilities, OpError, QueueState};
use vdpa::platform::{BoxFuture, Callback};
use virtio::DeviceStatus;
use virtq::{Doorbell, Event};

use crate::transport::{DeviceInfo, QueueSetup, Transport};

/// The way over a vDPA device, which the virtio device has to itself.
#[derive(Debug)]
pub(super) struct VdpaTransport {
    device: VdpaClaim,
    attachment: Arc<Attachment>,
    info: DeviceInfo,
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
        Ok(Arc::new(Self {
            info: info(&device)?,
            device,
            attachment,
        }))
    }
}

fn info(device: &VdpaClaim) -> Result<DeviceInfo, OpError> {
    let mut abilities = device.abilities();
    // What the platform translates is no business of the device's reset.
    if device.isolation() != Isolation::OnChip {
        abilities |= Abilities::PERSISTENT_MAPS;
    }
    let queues = 0..device.queue_count();
    Ok(DeviceInfo {
        node: Arc::clone(device.node()),
        platform: Arc::clone(device.platform()),
        device_type: device.device_type(),
        vendor_id: device.vendor_id(),
        abilities,
        config_size: device.config_size()?,
        queue_sizes: queues
            .map(|queue| device.queue_size_limits(queue))
            .collect::<Result<_, _>>()?,
        queue_align: device.queue_align(),
    })
}

// SAFETY: each call is the device's.
unsafe impl Transport for VdpaTransport {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn map_target(&self) -> Arc<dyn MapTarget> {
        Arc::clone(&self.attachment) as Arc<dyn MapTarget>
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
        self.device.set_status(status)
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        self.device.reset()
    }

    fn is_lost(&self) -> bool {
        self.device.is_lost()
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        self.device.suspend()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        self.device.resume()
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

    unsafe fn start_queue(
        &self,
        queue: u16,
        setup: QueueSetup,
    ) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let device = &self.device;
            device.set_queue_callback(queue, setup.event.map(Callback::event))?;
            device.set_queue_size(queue, setup.size)?;
            // SAFETY: the caller vouches for the rings, and the device is this transport's.
            unsafe { device.set_queue_address(queue, setup.address) }?;
            device.set_queue_state(queue, setup.state)?;
            device.start_queue(queue).await
        })
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        self.device.queue_state(queue)
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
