//! A bus for simulated devices, and a driver that puts into their queues what the test says.

use std::sync::Arc;

use vdpa::device::{
    Attachment, DeviceKind, Removal, Removed, VdpaBus, VdpaClaim, VdpaDevice, VdpaDeviceConfig,
};
use vdpa::dma::{DmaSpace, IsolationUnit, Owner, Trust};
use vdpa::keeper::hold;
use vdpa::ops::{OpError, QueueAddress, QueueState};
use vdpa::platform::Callback;
use vdpa::testing::FakePlatform;
use vdpa::{Features, Node, Platform, VdpaOps};
use vdpa_sim::{Faults, Flavour, SimConfig};
use virtio::DeviceStatus;
use virtq::{
    Chain, DeviceHold, DmaAllocator, DmaBuffer, Doorbell, Event, Notify, Queue, QueueConfig,
    RingFeatures, Segment,
};

/// How many entries the queues of a test have.
pub const SIZE: u16 = 64;

/// The format of the rings, and how the device is told what is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub packed: bool,
    pub flavour: Flavour,
    /// Event indices and indirect descriptors.
    pub ring_features: bool,
}

/// Every combination that a device must serve alike.
pub fn variants() -> impl Iterator<Item = Variant> {
    (0..8).map(|bits| Variant {
        packed: bits & 1 == 0,
        flavour: if bits & 2 == 0 {
            Flavour::Incremental
        } else {
            Flavour::Whole
        },
        ring_features: bits & 4 == 0,
    })
}

impl Variant {
    /// The one that a driver chooses.
    pub const BEST: Self = Self {
        packed: true,
        flavour: Flavour::Incremental,
        ring_features: true,
    };
    pub const SPLIT: Self = Self {
        packed: false,
        ..Self::BEST
    };

    pub fn sim(self) -> SimConfig {
        SimConfig {
            flavour: self.flavour,
            ..SimConfig::default()
        }
    }

    /// What a driver accepts besides the features of the device type.
    pub fn features(self) -> Features {
        let mut features = Features::from(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
        if self.packed {
            features = features | virtio::F::RING_PACKED.into();
        }
        if self.ring_features {
            features = features | (virtio::F::EVENT_IDX | virtio::F::INDIRECT_DESC).into();
        }
        features
    }

    fn ring(self) -> RingFeatures {
        RingFeatures::NONE
            .with_packed(self.packed)
            .with_event_idx(self.ring_features)
            .with_indirect(self.ring_features)
    }
}

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub root: Arc<Node>,
    pub bus: Arc<VdpaBus>,
}

impl World {
    pub fn new() -> Self {
        Self {
            platform: FakePlatform::new(),
            root: Node::root("root"),
            bus: VdpaBus::new("vdpa"),
        }
    }

    pub fn kernel(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    /// A device on the bus, which belongs to the test.
    pub fn register(&self, ops: Box<dyn VdpaOps>) -> Arc<VdpaClaim> {
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.root),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: self.kernel(),
            kind: DeviceKind::Software,
            name: None,
        };
        self.platform.block_on(async {
            let device = self.bus.register(ops, config).await.unwrap();
            Arc::new(hold(&self.bus, &device).await.unwrap())
        })
    }

    pub fn unregister(&self, device: &Arc<VdpaDevice>) -> Removed {
        self.platform
            .block_on(self.bus.unregister(device, Removal::Orderly))
    }

    /// Lets the devices work until they wait.
    pub fn run(&self) {
        self.platform.run_until_stalled();
    }

    /// A running device with these queues, driven by the test.
    pub fn drive(
        &self,
        ops: Box<dyn VdpaOps>,
        variant: Variant,
        features: impl Into<Features>,
        queues: &[u16],
    ) -> Rig {
        let device = self.register(ops);
        let space = DmaSpace::new(&self.kernel());
        let rig = Rig::prepare(self, device, &space, variant, features.into());
        rig.with_queues(self, queues)
    }
}

/// A device, its memory and its queues.
pub struct Rig {
    pub device: Arc<VdpaClaim>,
    pub attachment: Arc<Attachment>,
    pub space: Arc<DmaSpace>,
    pub dma: Arc<dyn DmaAllocator>,
    pub hold: Arc<DeviceHold>,
    pub config_event: Arc<Event>,
    pub variant: Variant,
    pub features: Features,
    pub lines: Vec<Line>,
}

/// One queue.
pub struct Line {
    pub index: u16,
    pub ring: Queue<Parts>,
    pub doorbell: Doorbell,
    /// Raised by the interrupt.
    pub event: Arc<Event>,
}

/// What has come back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Everything that the device could write.
    pub bytes: Vec<u8>,
    pub written: usize,
}

impl Rig {
    /// Takes a device as far as `FEATURES_OK`, with a space attached to it.
    pub fn prepare(
        world: &World,
        device: Arc<VdpaClaim>,
        space: &Arc<DmaSpace>,
        variant: Variant,
        features: Features,
    ) -> Self {
        let features = features | variant.features();
        let attachment = world.platform.block_on(async {
            device.reset().await.unwrap();
            let attachment = device.attach(Owner::Kernel, Trust::Isolated).unwrap();
            space.attach(Arc::<Attachment>::clone(&attachment)).unwrap();
            negotiate(&device, features).await.unwrap();
            attachment
        });
        Self {
            attachment,
            dma: space.allocator(),
            space: Arc::clone(space),
            hold: DeviceHold::new(),
            config_event: Arc::default(),
            variant,
            features,
            lines: Vec::new(),
            device,
        }
    }

    /// Makes these queues and lets the device run.
    pub fn with_queues(self, world: &World, queues: &[u16]) -> Self {
        let rig = queues.iter().fold(self, |rig, queue| rig.with_ring(*queue));
        rig.start(world);
        rig
    }

    /// Makes one queue.
    pub fn with_ring(mut self, index: u16) -> Self {
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features: self.variant.ring(),
        };
        self.lines.push(Line {
            index,
            ring: Queue::new(&config, &self.dma, &self.hold).unwrap(),
            doorbell: self.device.doorbell(index).unwrap(),
            event: Arc::default(),
        });
        self
    }

    /// Lets the device run.
    pub fn start(&self, world: &World) {
        world.platform.block_on(self.set_up(&[])).unwrap();
    }

    /// Tells the device of the queues, each in this state if there is one, and lets it run.
    pub async fn set_up(&self, states: &[QueueState]) -> Result<(), OpError> {
        self.tell(states).await?;
        let config_callback = Callback::event(Arc::clone(&self.config_event));
        self.device.set_config_callback(Some(config_callback))?;
        let status = agreed() | DeviceStatus::DRIVER_OK;
        self.device.set_status(status).await?;
        self.hold.hold();
        Ok(())
    }

    /// Tells the device of the queues and makes them ready.
    pub async fn tell(&self, states: &[QueueState]) -> Result<(), OpError> {
        let device = &self.device;
        for (place, line) in self.lines.iter().enumerate() {
            let callback = Callback::event(Arc::clone(&line.event));
            device.set_queue_callback(line.index, Some(callback))?;
            device.set_queue_size(line.index, line.ring.size())?;
            let addresses = line.ring.addresses();
            let address = QueueAddress {
                descriptor: addresses.descriptor,
                driver: addresses.driver,
                device: addresses.device,
            };
            // SAFETY: the ring is that of a `Queue` of the rig, held until a reset.
            unsafe { device.set_queue_address(line.index, address) }?;
            if let Some(state) = states.get(place) {
                device.set_queue_state(line.index, *state)?;
            }
            device.start_queue(line.index).await?;
        }
        Ok(())
    }

    /// Offers a chain without telling the device: each part is a buffer of its own.
    pub fn offer(&mut self, line: usize, readable: &[&[u8]], writable: &[usize]) {
        let parts = Parts::new(&self.dma, readable, writable);
        let added = self.lines[line].ring.add(parts);
        added.map_err(|error| error.reason).unwrap();
    }

    /// Tells the device what was offered, if it wants to know. Whether it did.
    pub fn kick(&mut self, line: usize) -> bool {
        let Line { ring, doorbell, .. } = &mut self.lines[line];
        let needed = ring.publish() == Notify::Needed;
        if needed {
            doorbell.ring(ring.place());
        }
        needed
    }

    /// What the device has used next.
    pub fn take(&mut self, line: usize) -> Option<Answer> {
        let used = self.lines[line].ring.take().unwrap()?;
        let parts = used.chain.writable.iter();
        Some(Answer {
            bytes: parts.flat_map(|part| part.iter().copied()).collect(),
            written: used.written as usize,
        })
    }

    /// A chain from the start to the end.
    pub fn exchange(
        &mut self,
        world: &World,
        line: usize,
        readable: &[&[u8]],
        writable: &[usize],
    ) -> Answer {
        self.offer(line, readable, writable);
        self.kick(line);
        world.run();
        self.take(line).expect("the device answers")
    }

    /// Asks for interrupts of all queues, so that the next use raises one.
    pub fn arm(&mut self) {
        for line in &mut self.lines {
            line.event.take();
            let _ = line.ring.enable_interrupts();
        }
    }

    /// What the device counts of this name in a queue.
    pub fn count(&self, queue: u16, name: &str) -> u64 {
        let counters = self.device.queue_statistics(queue).unwrap();
        let found = counters.iter().find(|(counter, _)| *counter == name);
        found.unwrap_or_else(|| panic!("{name} in {counters:?}")).1
    }

    pub fn status(&self) -> DeviceStatus {
        self.device.status().unwrap()
    }

    /// Resets the device and gives back everything.
    pub fn stop(self, world: &World) -> Arc<VdpaClaim> {
        world.platform.block_on(async {
            self.device.reset().await.unwrap();
            self.hold.release();
            drop(self.lines);
            self.space.detach();
            self.attachment.detach().await.unwrap();
        });
        self.device
    }
}

pub async fn negotiate(device: &VdpaClaim, features: Features) -> Result<(), OpError> {
    let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    device.set_status(status).await?;
    device.set_driver_features(features)?;
    device.set_status(agreed()).await
}

pub fn agreed() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK
}

/// A device that fails as its `Faults` say, and otherwise is as the variant has it.
pub fn with_faults(variant: Variant, faults: &Arc<Faults>) -> SimConfig {
    SimConfig {
        faults: Arc::clone(faults),
        ..variant.sim()
    }
}

/// A chain of any buffers.
#[derive(Debug)]
pub struct Parts {
    pub readable: Vec<DmaBuffer>,
    pub writable: Vec<DmaBuffer>,
    /// Where the device is led instead, which it must not reach.
    pub elsewhere: Option<Box<Self>>,
}

impl Parts {
    pub fn new(dma: &Arc<dyn DmaAllocator>, readable: &[&[u8]], writable: &[usize]) -> Self {
        let readable = readable.iter().map(|bytes| {
            let mut buffer = DmaBuffer::new(dma, bytes.len()).unwrap();
            buffer.copy_from_slice(bytes);
            buffer
        });
        let writable = writable.iter().map(|len| {
            let mut buffer = DmaBuffer::new(dma, *len).unwrap();
            buffer.fill(UNTOUCHED);
            buffer
        });
        Self {
            readable: readable.collect(),
            writable: writable.collect(),
            elsewhere: None,
        }
    }

    fn segment(own: &DmaBuffer, elsewhere: Option<&DmaBuffer>) -> Segment {
        let mut segment = Segment::of(own);
        if let Some(buffer) = elsewhere {
            segment.addr = buffer.addr();
        }
        segment
    }
}

/// What a buffer holds that the device has not written.
pub const UNTOUCHED: u8 = 0xa5;

// SAFETY: the segments are the buffers that the value owns, each whole and once.
unsafe impl Chain for Parts {
    const MAX_SEGMENTS: u16 = 16;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let elsewhere = |at| self.elsewhere.as_ref().map(|parts| &parts.readable[at]);
        let own = self.readable.iter().enumerate();
        own.map(move |(at, buffer)| Self::segment(buffer, elsewhere(at)))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let elsewhere = |at| self.elsewhere.as_ref().map(|parts| &parts.writable[at]);
        let own = self.writable.iter().enumerate();
        own.map(move |(at, buffer)| Self::segment(buffer, elsewhere(at)))
    }
}
