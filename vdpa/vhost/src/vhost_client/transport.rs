//! A vhost handle as the transport of a virtio device: every call becomes a request.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use vdpa::dma::MapTarget;
use vdpa::ops::{Abilities, OpError, QueueAddress, QueueState};
use vdpa::platform::BoxFuture;
use vdpa::{Features, Node, Platform};
use virtio::DeviceStatus;
use virtio_bus::Transport;
use virtq::{Doorbell, Event};

use crate::{BackendFeatures, VhostError, VhostHandle};

use super::link::Link;

/// The way over a vhost handle.
#[derive(Debug)]
pub(super) struct ClientTransport {
    link: Arc<Link>,
    platform: Arc<dyn Platform>,
    node: Arc<Node>,
    hang_up: Arc<Event>,
    device_type: u32,
    vendor_id: u32,
    abilities: Abilities,
    queue_count: u16,
    /// The largest size of each queue.
    queue_sizes: Box<[u16]>,
    queue_align: usize,
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
            platform: Arc::clone(platform),
            node: Arc::clone(handle.node()),
            hang_up: Arc::clone(handle.hang_up()),
            device_type: handle.device_id()?,
            vendor_id: handle.vendor_id()?,
            abilities: abilities(&handle, backend),
            queue_count: handle.queue_count(),
            queue_sizes: (0..handle.queue_count())
                .map(|queue| handle.vring_size(queue))
                .collect::<Result<_, _>>()?,
            queue_align: handle.vring_align(),
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
    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn map_target(&self) -> Arc<dyn MapTarget> {
        Arc::clone(&self.link) as Arc<dyn MapTarget>
    }

    fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn vendor_id(&self) -> u32 {
        self.vendor_id
    }

    fn abilities(&self) -> Abilities {
        self.abilities
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

    fn config_size(&self) -> Result<u32, OpError> {
        Ok(self.handle()?.config_size()?)
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

    fn queue_count(&self) -> u16 {
        self.queue_count
    }

    fn queue_size_limits(&self, queue: u16) -> Result<(u16, u16), OpError> {
        let size = self.queue_sizes.get(usize::from(queue));
        size.map(|size| (1, *size)).ok_or(OpError::OutOfRange)
    }

    fn queue_align(&self) -> usize {
        self.queue_align
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        Ok(self.handle()?.set_vring_num(queue, size)?)
    }

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        Ok(self.handle()?.set_vring_addr(queue, address)?)
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        Ok(self.handle()?.set_vring_base(queue, state)?)
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(async move { Ok(self.handle()?.vring_base(queue).await?) })
    }

    fn set_queue_event(&self, queue: u16, event: Option<Arc<Event>>) -> Result<(), OpError> {
        Ok(self.handle()?.set_vring_call(queue, event)?)
    }

    fn start_queue(&self, queue: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move { Ok(self.handle()?.enable_vring(queue).await?) })
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        Ok(self.handle()?.doorbell(queue)?)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.close())
    }
}
