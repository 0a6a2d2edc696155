//! A driver that keeps to the rules, on two queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vdpa::Features;
use vdpa::device::{Attachment, VdpaClaim};
use vdpa::dma::{DmaSpace, Owner, Trust};
use vdpa::keeper::hold;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::Callback;
use virtio::DeviceStatus;
use virtq::{
    DeviceHold, DmaAllocator, DmaBuffer, Doorbell, Exchange, Notify, Queue, QueueConfig, Readable,
    RingFeatures, Writable,
};

use super::books::{Books, NUMBER};
use super::world::World;

pub const QUEUES: u16 = 2;
const SIZE: u16 = 8;
const REQUEST: usize = 16;
const ANSWER: usize = 64;

pub struct Driver {
    pub claim: VdpaClaim,
    attachment: Arc<Attachment>,
    space: Arc<DmaSpace>,
    dma: Arc<dyn DmaAllocator>,
    hold: Arc<DeviceHold>,
    rings: Vec<Queue<Exchange>>,
    doorbells: Vec<Doorbell>,
    interrupts: Arc<AtomicU64>,
    number: u64,
}

impl Driver {
    pub fn new(world: &World) -> Self {
        let device = world.attach();
        let claim = world.platform.block_on(hold(&world.bus, &device));
        let claim = claim.expect("it is on the bus");
        let attachment = claim.attach(Owner::Kernel, Trust::Isolated);
        let attachment = attachment.expect("it is free");
        let space = DmaSpace::new(&world.kernel());
        let attached = space.attach(Arc::<Attachment>::clone(&attachment));
        attached.expect("it is empty");
        let doorbells = (0..QUEUES).map(|queue| claim.doorbell(queue).expect("it is there"));
        Self {
            doorbells: doorbells.collect(),
            claim,
            attachment,
            dma: space.allocator(),
            space,
            hold: DeviceHold::new(),
            rings: Vec::new(),
            interrupts: Arc::default(),
            number: 0,
        }
    }

    /// Whether it was started, and was not reset since.
    pub fn is_started(&self) -> bool {
        !self.rings.is_empty()
    }

    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// From a reset to `DRIVER_OK`.
    pub async fn start(&mut self, ring: RingFeatures) -> Result<(), OpError> {
        let claim = &self.claim;
        let mut features = Features::from(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
        for (wanted, feature) in [
            (ring.packed, virtio::F::RING_PACKED),
            (ring.event_idx, virtio::F::EVENT_IDX),
            (ring.indirect, virtio::F::INDIRECT_DESC),
            (ring.in_order, virtio::F::IN_ORDER),
        ] {
            if wanted {
                features = features | feature.into();
            }
        }
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        claim.set_status(status).await?;
        claim.set_driver_features(features)?;
        status |= DeviceStatus::FEATURES_OK;
        claim.set_status(status).await?;
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features: ring,
        };
        self.hold.hold();
        for index in 0..QUEUES {
            let ring = Queue::new(&config, &self.dma, &self.hold).expect("a host has memory");
            let addresses = ring.addresses();
            let address = QueueAddress {
                descriptor: addresses.descriptor,
                driver: addresses.driver,
                device: addresses.device,
            };
            self.rings.push(ring);
            claim.set_queue_size(index, SIZE)?;
            // SAFETY: the ring is that of a `Queue`, held until a reset.
            unsafe { claim.set_queue_address(index, address) }?;
            let interrupts = Arc::clone(&self.interrupts);
            let callback = Callback::new(move || {
                interrupts.fetch_add(1, Ordering::Relaxed);
            });
            claim.set_queue_callback(index, Some(callback))?;
            claim.start_queue(index).await?;
        }
        claim.set_status(status | DeviceStatus::DRIVER_OK).await
    }

    /// A request, if there is room.
    pub fn offer(&mut self, queue: u16, books: &mut Books) {
        let Some(ring) = self.rings.get_mut(usize::from(queue)) else {
            return;
        };
        let mut request = DmaBuffer::new(&self.dma, REQUEST).expect("a host has memory");
        request[..NUMBER].copy_from_slice(&self.number.to_le_bytes());
        let exchange = Exchange {
            request: Some(Readable {
                buffer: request,
                len: REQUEST as u32,
            }),
            answer: Some(Writable(
                DmaBuffer::new(&self.dma, ANSWER).expect("a host has memory"),
            )),
        };
        if ring.add(exchange).is_err() {
            return;
        }
        books.offered(self.number, queue);
        self.number += 1;
        if ring.publish() == Notify::Needed {
            self.doorbells[usize::from(queue)].ring(ring.place());
        }
    }

    /// Takes what has come back.
    pub fn collect(&mut self, books: &mut Books) {
        for ring in &mut self.rings {
            while let Some(used) = ring.take().expect("no task breaks a ring") {
                let request = used.chain.request.expect("it had one").buffer;
                let number = request[..NUMBER].try_into().expect("so many");
                let answer = used.chain.answer.expect("it had one").0;
                books.returned(u64::from_le_bytes(number), &answer, used.written as usize);
            }
        }
    }

    pub async fn reset(&mut self) {
        self.claim.reset().await.expect("a reset waits for no task");
        self.hold.release();
        self.rings.clear();
    }

    /// Gives everything back.
    pub async fn leave(mut self, world: &World) {
        self.reset().await;
        self.space.detach();
        self.attachment.detach().await.expect("it was reset");
        let Self {
            claim, attachment, ..
        } = self;
        drop(attachment);
        let orderly = vdpa::device::Removal::Orderly;
        world.bus.unregister(&claim, orderly).await;
    }
}
