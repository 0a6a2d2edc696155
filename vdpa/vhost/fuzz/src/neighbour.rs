//! A client that keeps to the rules, on a disk of its own: it must notice nothing of the other one.

use std::sync::Arc;

use vdpa::device::{Removal, VdpaDevice};
use vdpa::iotlb::Permission;
use vdpa::ops::QueueAddress;
use vdpa_sim::Flavour;
use vhost_vdpa::{IotlbMessage, OpenOptions, VhostError, VhostHandle};
use virtio::DeviceStatus;
use virtq::{
    Arena, DeviceHold, DeviceMemory, DmaAddr, DmaAllocator, DmaBuffer, Doorbell, Exchange, Queue,
    QueueConfig, Readable, RingFeatures, Writable,
};

use super::rings::BASE;
use super::world::{Kind, World};

const ARENA: usize = 64 << 10;
const SECTOR: usize = 512;
const SECTORS: u64 = 128;

pub struct Neighbour {
    device: Arc<VdpaDevice>,
    handle: VhostHandle,
    arena: Arc<dyn DmaAllocator>,
    queue: Queue<Exchange>,
    doorbell: Doorbell,
    turns: u64,
}

impl Neighbour {
    pub fn new(world: &World) -> Self {
        let device = world.add(Kind::Blk, Flavour::Incremental);
        let handle = world
            .open(&device, OpenOptions::default())
            .expect("nobody else opens it");
        let memory = world.memory(ARENA);
        let config = QueueConfig {
            size: 8,
            align: 1,
            features: RingFeatures::default(),
        };
        handle.set_owner().expect("it is the first to");
        let message = IotlbMessage::Update {
            asid: 0,
            iova: BASE,
            size: memory.len(),
            // SAFETY: the handle is this client's, whose rings are its queues.
            memory: unsafe { DeviceMemory::lent(&memory) },
            offset: 0,
            permission: Permission::READ | Permission::WRITE,
        };
        handle.message(message).expect("nothing else is mapped");
        let arena = Arena::new(memory, DmaAddr(BASE)).expect("it begins with a page");
        let arena: Arc<dyn DmaAllocator> = arena;
        let queue = Queue::new(&config, &arena, &DeviceHold::new()).expect("there is room");
        let doorbell = world
            .platform
            .block_on(start(&handle, &queue))
            .expect("it keeps to the rules");
        Self {
            device,
            handle,
            arena,
            queue,
            doorbell,
            turns: 0,
        }
    }

    /// Writes a sector and reads it back.
    pub fn check(&mut self, world: &World) {
        self.turns += 1;
        let sector = self.turns % SECTORS;
        let pattern: Vec<u8> = (0..SECTOR as u64)
            .map(|byte| (byte ^ self.turns.wrapping_mul(31)) as u8)
            .collect();
        let written = self.ask(world, &[&header(1, sector), &pattern[..]].concat(), 1);
        assert_eq!(written, [0], "the neighbour cannot write");
        let read = self.ask(world, &header(0, sector), SECTOR + 1);
        assert_eq!(
            read[..SECTOR],
            pattern[..],
            "the neighbour's data have changed"
        );
        assert_eq!(read[SECTOR], 0, "the neighbour cannot read");
        assert!(!self.handle.is_hung_up());
    }

    /// Closes its device and takes it away. All its memory is back.
    pub fn leave(self, world: &World) {
        let Self {
            device,
            handle,
            arena,
            queue,
            ..
        } = self;
        let closed = world.platform.block_on(handle.close());
        assert_eq!(closed, Ok(()));
        drop((queue, arena));
        world.remove(&device, Removal::Orderly);
    }

    fn ask(&mut self, world: &World, request: &[u8], answer_len: usize) -> Vec<u8> {
        let mut buffer = DmaBuffer::new(&self.arena, request.len()).expect("there is room");
        buffer.copy_from_slice(request);
        let len = request.len() as u32;
        let answer = DmaBuffer::new(&self.arena, answer_len).expect("there is room");
        let exchange = Exchange {
            request: Some(Readable { buffer, len }),
            answer: Some(Writable(answer)),
        };
        self.queue.add(exchange).expect("the queue is empty");
        let _ = self.queue.publish();
        self.doorbell.ring(self.queue.place());
        world.settle();
        let used = self.queue.take().expect("the device keeps to the rules");
        let used = used.expect("the neighbour is not served");
        let answer = used.chain.answer.expect("it comes back as it was");
        answer.0.to_vec()
    }
}

async fn start(handle: &VhostHandle, queue: &Queue<Exchange>) -> Result<Doorbell, VhostError> {
    let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    handle.set_status(status).await?;
    handle.set_features((virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into())?;
    status |= DeviceStatus::FEATURES_OK;
    handle.set_status(status).await?;
    let addresses = queue.addresses();
    let address = QueueAddress {
        descriptor: addresses.descriptor,
        driver: addresses.driver,
        device: addresses.device,
    };
    handle.set_vring_num(0, queue.size())?;
    handle.set_vring_addr(0, address)?;
    handle.enable_vring(0).await?;
    handle.set_status(status | DeviceStatus::DRIVER_OK).await?;
    handle.doorbell(0)
}

/// A request of a disk (VIRTIO 1.2, 5.2.6): 0 reads, 1 writes.
fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}
