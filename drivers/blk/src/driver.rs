//! Bringing a disk up and taking it down: the driver on the virtio bus (VIRTIO 1.2, 5.2.5).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::features::ring_features;
use vdpa::ids::IdGuard;
use vdpa::platform::BoxFuture;
#[cfg(feature = "suspend")]
use vdpa::power::PowerError;
use vdpa::tree::{Bytes, Inspect, Report};
use vdpa::{Features, Node};
use virtio::blk::F;
use virtio_bus::Registry;
use virtio_bus::{Completion, VirtQueue, VirtioClaim, VirtioDevice, VirtioId};

use super::copy::LANES;
use super::disk::{BlkRequest, Disk, Shared};
use super::error::Unsuitable;
use super::limits::{Limits, SECTOR_LEN, read_capacity};
use super::pool::Pool;
use super::slot::{RequestSlots, SlotForm};
use super::worker::Worker;

/// The request queue (VIRTIO 1.2, 5.2.2).
const REQUEST_QUEUE: u16 = 0;
/// The most entries of the request queue.
const QUEUE_SIZE_MAX: u16 = 256;
/// How many bounce buffers are kept: enough for two transfers at once.
const BOUNCE_KEPT: usize = 2 * LANES;

/// The driver of virtio block devices.
#[derive(Debug)]
pub struct BlkDriver {
    registry: Arc<Registry<Disk>>,
    completion: Completion,
    ids: [VirtioId; 1],
}

impl BlkDriver {
    /// A driver that publishes its disks in `registry`. The disks interrupt.
    #[must_use]
    pub fn new(registry: Arc<Registry<Disk>>) -> Self {
        Self::with_completion(registry, Completion::Interrupt)
    }

    /// As [`BlkDriver::new`]; `completion` says whether the disks interrupt or are asked again and
    /// again.
    #[must_use]
    pub fn with_completion(registry: Arc<Registry<Disk>>, completion: Completion) -> Self {
        let ids = [VirtioId {
            device_type: virtio::Id::Block,
        }];
        Self {
            registry,
            completion,
            ids,
        }
    }

    async fn attach(&self, device: VirtioClaim) -> Result<BoundBlk, ProbeError> {
        let supported = F::RO | F::SIZE_MAX | F::SEG_MAX | F::BLK_SIZE | F::FLUSH;
        let features = device.negotiate(supported.into(), Features::EMPTY).await?;
        let queue = device
            .create_queue(REQUEST_QUEUE, "requests", QUEUE_SIZE_MAX, self.completion)
            .await?;
        // A device that does not run touches no queue, so the queue may be dropped if this fails.
        let prepared = self.start(&device, features, queue.ring.size()).await?;
        Ok(self.publish(device, queue, prepared))
    }

    /// Everything that may fail, up to a device that runs.
    async fn start(
        &self,
        device: &VirtioClaim,
        features: Features,
        queue_size: u16,
    ) -> Result<Prepared, ProbeError> {
        let limits = Limits::read(device, features, queue_size)?;
        let capacity = read_capacity(device)?;
        let form = SlotForm {
            features: ring_features(features),
            segment_max: limits.segment_max,
            data_segments: limits.data_segments(),
        };
        let slots = RequestSlots::new(&device.dma(), usize::from(queue_size), form)
            .map_err(|_| ProbeError::OutOfResources)?;
        let id = self
            .registry
            .allocate_number()
            .map_err(|_| ProbeError::OutOfResources)?;
        device.start().await?;
        Ok(Prepared {
            limits,
            capacity,
            slots,
            id,
        })
    }

    /// Makes a disk of a device that runs.
    fn publish(
        &self,
        device: VirtioClaim,
        queue: VirtQueue<BlkRequest>,
        prepared: Prepared,
    ) -> BoundBlk {
        let Prepared {
            limits,
            capacity,
            slots,
            id,
        } = prepared;
        let name = format!("blk{}", id.number());
        log::info!(
            "{name} on {}: {}, {}-byte blocks, {}, queue {}",
            device.node().name(),
            size(capacity),
            limits.block_len,
            access(&limits),
            queue.ring.size(),
        );
        let node = Node::child(device.node(), &name);
        let (requests, event) = queue.into_requests();
        let shared = Arc::new(Shared {
            name,
            device,
            requests,
            limits,
            capacity: AtomicU64::new(capacity),
            slots,
            bounce: Pool::new(BOUNCE_KEPT),
            stopped: AtomicBool::new(false),
            _id: id,
        });
        let worker = Worker::spawn(&shared, event, self.completion);
        node.set_inspector(Some(Arc::clone(&shared) as _));
        self.registry
            .publish(&shared.name, Disk(Arc::clone(&shared)));
        BoundBlk {
            registry: Arc::clone(&self.registry),
            shared,
            worker,
            _node: node,
        }
    }
}

impl Driver<VirtioDevice> for BlkDriver {
    fn name(&self) -> &'static str {
        "virtio_blk"
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

/// What a disk needs besides its queue.
struct Prepared {
    limits: Limits,
    capacity: u64,
    slots: RequestSlots,
    id: IdGuard,
}

/// The driver's hold on one disk.
struct BoundBlk {
    registry: Arc<Registry<Disk>>,
    shared: Arc<Shared>,
    worker: Worker,
    /// In the tree for as long as the disk is bound.
    _node: Arc<Node>,
}

impl BoundBlk {
    /// Ends every request, stops the disk, and frees what it held, even if handles are left.
    async fn stop(&self) {
        self.shared.stop();
        // If the device does not follow, the queue knows that its memory must be leaked.
        let _ = self.shared.device.reset().await;
        self.worker.join().await;
        self.shared.requests.reclaim();
        self.shared.slots.clear();
        self.shared.bounce.clear();
    }
}

impl Bound for BoundBlk {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            drop(self.registry.take_named(&self.shared.name));
            self.stop().await;
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop())
    }

    #[cfg(feature = "suspend")]
    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(self.shared.device.suspend())
    }

    #[cfg(feature = "suspend")]
    fn resume(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(self.shared.device.resume())
    }
}

impl Inspect for Shared {
    fn report(&self) -> Report {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let cache = if self.limits.has_cache {
            "write-back"
        } else {
            "write-through"
        };
        let facts = [
            ("capacity", size(capacity).to_string()),
            ("block size", self.limits.block_len.to_string()),
            ("access", access(&self.limits).to_string()),
            ("cache", String::from(cache)),
            (
                "largest request",
                Bytes(self.limits.transfer_max.into()).to_string(),
            ),
        ];
        Report {
            facts: facts.into(),
            ..Report::default()
        }
    }
}

fn access(limits: &Limits) -> &'static str {
    if limits.read_only {
        "read-only"
    } else {
        "read-write"
    }
}

fn size(sectors: u64) -> Bytes {
    Bytes(sectors.saturating_mul(SECTOR_LEN.into()))
}
