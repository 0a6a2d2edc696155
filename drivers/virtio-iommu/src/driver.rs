//! Bringing an IOMMU up and taking it down: the driver on the virtio bus (VIRTIO 1.2, 5.13.5).

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use iommu::{Iommu, Iommus};
use spin::Mutex;
use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::ids::{IdAllocator, IdGuard};
use vdpa::platform::BoxFuture;
use vdpa::{Features, Node};
use virtio_bus::{Completion, VirtQueue, VirtioClaim, VirtioDevice, VirtioId};
use virtq::{DmaError, Writable};

use crate::config::{Limits, end_bypass, feature};
use crate::error::Unsuitable;
use crate::event::{self, EventQueue};
use crate::handle::Handle;
use crate::message::Message;
use crate::request_queue::{self, RequestQueue};
use crate::shared::{Queues, Shared};
use crate::topology::Topology;
use crate::worker::Worker;

/// The queues (VIRTIO 1.2, 5.13.2).
const REQUEST_QUEUE: u16 = 0;
const EVENT_QUEUE: u16 = 1;

/// The driver of virtio IOMMU devices.
#[derive(Debug)]
pub struct IommuDriver {
    iommus: Arc<Iommus>,
    topology: Arc<dyn Topology>,
    /// The numbers in their names.
    numbers: Arc<IdAllocator>,
    ids: [VirtioId; 1],
}

impl IommuDriver {
    /// A driver that adds its IOMMUs to `iommus`. `topology` says which devices they stand before.
    #[must_use]
    pub fn new(iommus: Arc<Iommus>, topology: Arc<dyn Topology>) -> Self {
        let ids = [VirtioId {
            device_type: virtio::Id::Iommu,
        }];
        Self {
            iommus,
            topology,
            numbers: IdAllocator::new(u32::MAX),
            ids,
        }
    }

    async fn attach(&self, device: VirtioClaim) -> Result<BoundIommu, ProbeError> {
        let features = device.negotiate(feature::all(), feature::MAP_UNMAP).await?;
        // The answers are waited for on the spot.
        let requests = device
            .create_queue(
                REQUEST_QUEUE,
                "requests",
                request_queue::SIZE_MAX,
                Completion::Polled,
            )
            .await?;
        let events = device
            .create_queue(
                EVENT_QUEUE,
                "events",
                event::SIZE_MAX,
                Completion::Interrupt,
            )
            .await?;
        let alarm = Arc::clone(&events.event);
        // A device that does not run touches no queue, so the queues may be dropped if this fails.
        let prepared = self.start(&device, features, requests, events).await?;
        if let Err(error) = end_bypass(&device, features) {
            // Otherwise the queues know that their memory must be leaked.
            let _ = device.reset().await;
            return Err(error);
        }
        let shared = self.publish(device, prepared);
        let worker = Worker::spawn(&shared, alarm);
        let node = Node::child(shared.device.node(), &shared.name);
        node.set_inspector(Some(Arc::clone(&shared) as _));
        let iommu: Arc<dyn Iommu> = Arc::new(Handle(Arc::clone(&shared)));
        self.iommus.add(Arc::clone(&iommu));
        Ok(BoundIommu {
            iommus: Arc::clone(&self.iommus),
            iommu,
            shared,
            worker,
            _node: node,
        })
    }

    /// Everything that may fail, up to a device that runs.
    async fn start(
        &self,
        device: &VirtioClaim,
        features: Features,
        requests: VirtQueue<Message>,
        events: VirtQueue<Writable>,
    ) -> Result<Prepared, ProbeError> {
        let limits = Limits::read(device, features)?;
        let id = self.numbers.allocate();
        let id = id.map_err(|_| ProbeError::OutOfResources)?;
        let no_memory = |_: DmaError| ProbeError::OutOfResources;
        let requests = RequestQueue::new(requests, &device.dma()).map_err(no_memory)?;
        let events = EventQueue::new(events, &device.dma()).map_err(no_memory)?;
        device.start().await?;
        Ok(Prepared {
            limits,
            requests,
            events,
            id,
        })
    }

    /// Makes an IOMMU of a device that runs and that nobody bypasses.
    fn publish(&self, device: VirtioClaim, prepared: Prepared) -> Arc<Shared> {
        let Prepared {
            limits,
            requests,
            mut events,
            id,
        } = prepared;
        events.kick();
        let name = format!("viommu{}", id.number());
        log::info!("{name} on {}: {}", device.node().name(), limits.describe());
        let queues = Queues {
            requests: Mutex::new(Some(requests)),
            events: Mutex::new(Some(events)),
        };
        Shared::new(name, device, limits, Arc::clone(&self.topology), queues, id)
    }
}

impl Driver<VirtioDevice> for IommuDriver {
    fn name(&self) -> &'static str {
        "virtio_iommu"
    }

    fn ids(&self) -> &[VirtioId] {
        &self.ids
    }

    fn probe<'a>(
        &'a self,
        device: Claim<VirtioDevice>,
        id: Option<&'a VirtioId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            // An override brings devices here that no row describes.
            id.ok_or_else(|| ProbeError::unsuitable(Unsuitable::Type))?;
            let bound = self.attach(VirtioClaim::new(device)).await?;
            Ok(Box::new(bound) as Box<dyn Bound>)
        })
    }
}

/// What an IOMMU needs.
struct Prepared {
    limits: Limits,
    requests: RequestQueue,
    events: EventQueue,
    id: IdGuard,
}

/// The driver's hold on one IOMMU.
struct BoundIommu {
    iommus: Arc<Iommus>,
    iommu: Arc<dyn Iommu>,
    shared: Arc<Shared>,
    worker: Worker,
    /// In the tree for as long as the IOMMU is bound.
    _node: Arc<Node>,
}

impl Bound for BoundIommu {
    /// Who is in a domain reaches nothing afterwards, and is told so by the errors of its domain.
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.iommus.remove(&self.iommu);
            self.shared.stop();
            // If the device does not follow, the queues know that their memory must be leaked.
            let _ = self.shared.device.reset().await;
            self.worker.join().await;
            drop(self.shared.queues.requests.lock().take());
            drop(self.shared.queues.events.lock().take());
        })
    }
}
