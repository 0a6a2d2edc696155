//! A driver of disks that asks for what the test says.

use std::collections::BTreeMap;
use std::sync::Arc;

use vdpa::Features;
use vdpa::device::{Attachment, Removal, Removed, VdpaClaim};
use vdpa::dma::{DmaSpace, Owner, Trust};
use vdpa::keeper::hold;
use vdpa::ops::QueueAddress;
use virtio::DeviceStatus;
use virtq::{
    DeviceHold, DmaAllocator, DmaBuffer, Doorbell, Exchange, Notify, Queue, QueueConfig, Readable,
    RingFeatures, Writable,
};

use crate::world::World;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
/// What is where nobody has written.
pub const UNTOUCHED: u8 = 0xa5;
const SIZE: u16 = 64;

/// What came back: all that could be written, and how much of it the driver is told of.
#[derive(Clone, Debug)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub written: usize,
}

impl Answer {
    pub fn status(&self) -> u8 {
        self.bytes.last().copied().unwrap_or(UNTOUCHED)
    }
}

pub struct Driver {
    pub claim: VdpaClaim,
    attachment: Arc<Attachment>,
    space: Arc<DmaSpace>,
    dma: Arc<dyn DmaAllocator>,
    hold: Arc<DeviceHold>,
    ring: Queue<Exchange>,
    doorbell: Doorbell,
    /// Requests that are under way, by the address of their answer.
    open: BTreeMap<u64, u64>,
    answers: BTreeMap<u64, Answer>,
    number: u64,
}

impl Driver {
    /// Drives a device of a world, with the features that it offers out of these.
    pub async fn start(world: &World, name: &str, features: Features) -> Self {
        let device = world.attach(name).await;
        let claim = hold(&world.vdpa, &device).await.unwrap();
        let attachment = claim.attach(Owner::Kernel, Trust::Isolated).unwrap();
        let space = DmaSpace::new(&world.kernel);
        space.attach(Arc::<Attachment>::clone(&attachment)).unwrap();
        let dma = space.allocator();
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        claim.set_status(status).await.unwrap();
        let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
        let features = features.intersection(claim.device_features().unwrap());
        claim.set_driver_features(features | base.into()).unwrap();
        status |= DeviceStatus::FEATURES_OK;
        claim.set_status(status).await.unwrap();
        let hold = DeviceHold::new();
        hold.hold();
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features: RingFeatures::NONE,
        };
        let ring = Queue::new(&config, &dma, &hold).unwrap();
        let addresses = ring.addresses();
        let address = QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        };
        claim.set_queue_size(0, SIZE).unwrap();
        // SAFETY: the ring is that of a `Queue`, held until a reset.
        unsafe { claim.set_queue_address(0, address) }.unwrap();
        claim.start_queue(0).await.unwrap();
        let doorbell = claim.doorbell(0).unwrap();
        claim
            .set_status(status | DeviceStatus::DRIVER_OK)
            .await
            .unwrap();
        Self {
            claim,
            attachment,
            space,
            dma,
            hold,
            ring,
            doorbell,
            open: BTreeMap::new(),
            answers: BTreeMap::new(),
            number: 0,
        }
    }

    /// Offers a request, and says which.
    pub fn submit(&mut self, readable: &[u8], writable: usize) -> u64 {
        let mut request = DmaBuffer::new(&self.dma, readable.len()).unwrap();
        request.copy_from_slice(readable);
        let mut answer = DmaBuffer::new(&self.dma, writable).unwrap();
        answer.fill(UNTOUCHED);
        self.number += 1;
        self.open.insert(answer.as_ptr() as u64, self.number);
        let exchange = Exchange {
            request: Some(Readable {
                buffer: request,
                len: readable.len() as u32,
            }),
            answer: Some(Writable(answer)),
        };
        self.ring.add(exchange).ok().unwrap();
        if self.ring.publish() == Notify::Needed {
            self.doorbell.ring(self.ring.place());
        }
        self.number
    }

    /// What this request was answered, if it was.
    pub fn answer(&mut self, number: u64) -> Option<Answer> {
        while let Some(used) = self.ring.take().unwrap() {
            let bytes = used.chain.answer.unwrap().0;
            let number = self.open.remove(&(bytes.as_ptr() as u64)).unwrap();
            let answer = Answer {
                bytes: bytes.to_vec(),
                written: used.written as usize,
            };
            self.answers.insert(number, answer);
        }
        self.answers.get(&number).cloned()
    }

    /// Waits for it.
    pub async fn wait(&mut self, world: &World, number: u64) -> Answer {
        loop {
            if let Some(answer) = self.answer(number) {
                return answer;
            }
            vdpa::Platform::sleep(&*world.platform, std::time::Duration::from_millis(1)).await;
        }
    }

    /// Asks and waits.
    pub async fn ask(&mut self, world: &World, readable: &[u8], writable: usize) -> Answer {
        let number = self.submit(readable, writable);
        self.wait(world, number).await
    }

    pub async fn reset(&mut self) {
        self.claim.reset().await.unwrap();
        self.hold.release();
    }

    /// Gives everything back.
    pub async fn leave(mut self, world: &World) {
        self.reset().await;
        self.space.detach();
        self.attachment.detach().await.unwrap();
        let Self {
            claim, attachment, ..
        } = self;
        drop(attachment);
        let removed = world.vdpa.unregister(&claim, Removal::Orderly).await;
        assert_eq!(removed, Removed::Clean);
    }
}

/// A request from its type on.
pub fn request(kind: u32, sector: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// One range to discard or to write zeroes to.
pub fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}
