//! A vhost handle as the transport of a virtio device: every call becomes a request.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use vdpa::dma::MapTarget;
use vdpa::ops::{Abilities, OpError, QueueState};
use vdpa::platform::BoxFuture;
use vdpa::{Features, Platform};
use virtio::DeviceStatus;
use virtio_bus::{DeviceInfo, QueueSetup, Transport};
use virtq::{Doorbell, Event};

use crate::{BackendFeatures, VhostError, VhostHandle};

use super::link::Link;

/// The way over a vhost handle.
#[derive(Debug)]
pub(super) struct ClientTransport {
    link: Arc<Link>,
    hang_up: Arc<Event>,
    info: DeviceInfo,
    /// The device did not come out of its last reset.
    lost: AtomicBool,
}

impl ClientTransport {
    /// Takes possession of what the handle leads to. If it fails, the handle is closed.
    pub(super) fn open(
        handle: VhostHandle,
        platform: &Arc<dyn Platform>,
    ) -> Result<Arc<Self>, VhostError> {
        handle.set_owner()?;
        let wanted = BackendFeatures::all().difference(BackendFeatures::DESC_ASID);
        let backend = handle.backend_features()?.intersection(wanted);
        handle.set_backend_features(backend)?;
        Ok(Arc::new(Self {
            hang_up: Arc::clone(handle.hang_up()),
            info: DeviceInfo {
                node: Arc::clone(handle.node()),
                platform: Arc::clone(platform),
                device_type: handle.device_id()?,
                vendor_id: handle.vendor_id()?,
                abilities: abilities(&handle, backend),
                config_size: handle.config_size()?,
                queue_sizes: (0..handle.queue_count())
                    .map(|queue| Ok((1, handle.vring_size(queue)?)))
                    .collect::<Result<_, VhostError>>()?,
                queue_align: handle.vring_align(),
            },
            lost: AtomicBool::new(false),
            link: Arc::new(Link::new(handle)?),
        }))
    }

    /// Raised when the device has been taken away.
    pub(super) fn hang_up(&self) -> &Event {
        &self.hang_up
    }

    fn handle(&self) -> Result<Arc<VhostHandle>, OpError> {
        self.link.handle()
    }
}

/// What the device can do, in the words of the other transport.
fn abilities(handle: &VhostHandle, backend: BackendFeatures) -> Abilities {
    let pairs = [
        (BackendFeatures::SUSPEND, Abilities::SUSPEND),
        (BackendFeatures::RESUME, Abilities::RESUME),
        (BackendFeatures::IOTLB_PERSIST, Abilities::PERSISTENT_MAPS),
        (
            BackendFeatures::ENABLE_AFTER_DRIVER_OK,
            Abilities::ENABLE_AFTER_DRIVER_OK,
        ),
    ];
    let mut abilities = Abilities::empty();
    for (feature, ability) in pairs {
        abilities.set(ability, backend.contains(feature));
    }
    abilities.set(Abilities::QUEUE_STATE, handle.keeps_vring_base());
    abilities
}

// SAFETY: each call is a request, which the other side carries out.
unsafe impl Transport for ClientTransport {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn map_target(&self) -> Arc<dyn MapTarget> {
        Arc::clone(&self.link) as Arc<dyn MapTarget>
    }

    fn device_features(&self) -> Result<Features, OpError> {
        Ok(self.handle()?.features()?)
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        Ok(self.handle()?.set_features(features)?)
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        Ok(self.handle()?.status()?)
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move { Ok(self.handle()?.set_status(status).await?) })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async {
            let handle = self.handle()?;
            let result = handle.set_status(DeviceStatus::empty()).await;
            let result = result.map_err(OpError::from);
            let lost = !matches!(result, Ok(()) | Err(OpError::Gone));
            self.lost.store(lost, Ordering::Release);
            result
        })
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async { Ok(self.handle()?.suspend().await?) })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async { Ok(self.handle()?.resume().await?) })
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        Ok(self.handle()?.config(offset, bytes)?)
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        Ok(self.handle()?.set_config(offset, bytes)?)
    }

    fn set_config_event(&self, event: Arc<Event>) -> Result<(), OpError> {
        Ok(self.handle()?.set_config_call(Some(event))?)
    }

    unsafe fn start_queue(
        &self,
        queue: u16,
        setup: QueueSetup,
    ) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let handle = self.handle()?;
            handle.set_vring_call(queue, setup.event)?;
            handle.set_vring_num(queue, setup.size)?;
            handle.set_vring_addr(queue, setup.address)?;
            handle.set_vring_base(queue, setup.state)?;
            Ok(handle.enable_vring(queue).await?)
        })
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(async move { Ok(self.handle()?.vring_base(queue).await?) })
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        Ok(self.handle()?.doorbell(queue)?)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.close())
    }
}
