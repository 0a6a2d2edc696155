//! A vDPA bus with one parent that `vhost_vdpa` has claimed, and a client.

use std::sync::Arc;

use vdpa::device::{DeviceKind, VdpaBus, VdpaDevice, VdpaDeviceConfig, VdpaId};
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Abilities, QueueAddress};
use vdpa::testing::{FakeParent, FakePlatform, Traits, Translation};
use vdpa::{Features, Node};
use vhost_vdpa::{
    BackendFeatures, IotlbMessage, OpenOptions, VhostError, VhostHandle, VhostRegistry, VhostVdpa,
};
use virtio::DeviceStatus;
use virtq::{DeviceMemory, DmaAddr, DmaAllocator, SharedMemory};

/// A network device.
pub const NET: u32 = 1;

pub const NAME: &str = "vhost-vdpa-0";

/// The addresses of a fake device that translates.
pub const FIRST: u64 = 0x1_0000;
pub const LAST: u64 = 0xffff_ffff;

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub root: Arc<Node>,
    pub bus: Arc<VdpaBus>,
    pub registry: Arc<VhostRegistry>,
    pub unit: Arc<IsolationUnit>,
    pub parent: Arc<FakeParent>,
    pub device: Arc<VdpaDevice>,
}

impl World {
    /// A device that translates and can do everything.
    pub fn new() -> Self {
        Self::with(translating(Translation::Incremental))
    }

    /// A device with three queues of at most 64 entries and 12 bytes of configuration.
    pub fn with(traits: Traits) -> Self {
        Self::on(&FakePlatform::new(), traits)
    }

    pub fn on(platform: &Arc<FakePlatform>, traits: Traits) -> Self {
        let (bus, registry) = (VdpaBus::new("vdpa"), VhostRegistry::new());
        let root = Node::root("root");
        let unit = IsolationUnit::new(&root, Some(0x20), None);
        let driver = VhostVdpa::new(Arc::clone(&registry), [VdpaId::Any]);
        platform.block_on(bus.add_driver(Arc::new(driver))).unwrap();
        let (parent, device) = add_device(platform, &bus, &unit, traits);
        Self {
            platform: Arc::clone(platform),
            root,
            bus,
            registry,
            unit,
            parent,
            device,
        }
    }

    /// Another device of the same isolation unit.
    pub fn add_neighbour(&self, traits: Traits) -> (Arc<FakeParent>, Arc<VdpaDevice>) {
        add_device(&self.platform, &self.bus, &self.unit, traits)
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.platform.block_on(future)
    }

    pub fn open_with(&self, options: OpenOptions) -> Result<VhostHandle, VhostError> {
        self.run(self.registry.open(NAME, options))
    }

    pub fn open(&self) -> VhostHandle {
        self.open_with(OpenOptions::default()).unwrap()
    }

    /// A client that has set itself as the owner and acknowledged all that is offered.
    pub fn owner(&self) -> VhostHandle {
        self.owner_with(OpenOptions::default())
    }

    pub fn owner_with(&self, options: OpenOptions) -> VhostHandle {
        let handle = self.open_with(options).unwrap();
        handle.set_owner().unwrap();
        let offered = handle.backend_features().unwrap();
        handle.set_backend_features(offered).unwrap();
        handle
    }

    pub fn memory(&self, len: usize) -> SharedMemory {
        let dma = Arc::clone(self.platform.heap()) as Arc<dyn DmaAllocator>;
        SharedMemory::new(&dma, len).unwrap()
    }

    /// What the device has been told since the last call.
    pub fn log(&self) -> Vec<String> {
        self.parent.take_log()
    }
}

fn add_device(
    platform: &Arc<FakePlatform>,
    bus: &Arc<VdpaBus>,
    unit: &Arc<IsolationUnit>,
    traits: Traits,
) -> (Arc<FakeParent>, Arc<VdpaDevice>) {
    let features = Features::from(virtio::net::F::MAC | virtio::net::F::RSS_CONTEXT)
        | (virtio::F::NOTIFICATION_DATA | virtio::F::RING_PACKED | virtio::F::ACCESS_PLATFORM)
            .into();
    let parent = FakeParent::with_traits(platform, NET, features, &[64, 64, 32], &[7; 12], traits);
    let config = VdpaDeviceConfig {
        parent: Arc::clone(unit.node()),
        dma: Arc::clone(unit),
        platform: Arc::clone(platform) as Arc<dyn vdpa::Platform>,
        kind: DeviceKind::Pf,
        name: None,
    };
    let device = platform.block_on(bus.register(parent.ops(), config));
    (parent, device.unwrap())
}

/// A device that translates: queues 0 and 1 in group 0, queue 2 in group 1, three address spaces.
pub fn translating(translation: Translation) -> Traits {
    Traits {
        abilities: Abilities::all(),
        translation,
        iova_range: IovaRange::from_bounds(FIRST, LAST).unwrap(),
        spaces: 3,
        groups: vec![0, 0, 1],
        group_count: 2,
        ..Traits::default()
    }
}

pub fn update(memory: &SharedMemory, iova: u64) -> IotlbMessage {
    update_in(0, memory, iova)
}

pub fn update_in(asid: u16, memory: &SharedMemory, iova: u64) -> IotlbMessage {
    IotlbMessage::Update {
        asid,
        iova,
        size: memory.len(),
        memory: DeviceMemory::open(memory).unwrap(),
        offset: 0,
        permission: Permission::READ | Permission::WRITE,
    }
}

pub fn invalidate(iova: u64, size: u64) -> IotlbMessage {
    IotlbMessage::Invalidate {
        asid: 0,
        iova,
        size,
    }
}

/// Takes the device as far as `FEATURES_OK`.
pub async fn agree(handle: &VhostHandle, features: impl Into<Features>) -> Result<(), VhostError> {
    let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    handle.set_status(driver).await?;
    handle.set_features(features.into() | always())?;
    handle.set_status(agreed()).await
}

/// Tells where a queue lies and lets the device use it.
pub async fn set_up(handle: &VhostHandle, queue: u16) -> Result<(), VhostError> {
    handle.set_vring_num(queue, 16)?;
    handle.set_vring_addr(queue, somewhere())?;
    handle.enable_vring(queue).await
}

/// Takes the device as far as `DRIVER_OK`, with its first queue enabled.
pub async fn start(handle: &VhostHandle) -> Result<(), VhostError> {
    agree(handle, Features::EMPTY).await?;
    set_up(handle, 0).await?;
    handle.set_status(running()).await
}

/// What every driver accepts.
pub fn always() -> Features {
    (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into()
}

pub fn agreed() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK
}

pub fn running() -> DeviceStatus {
    agreed() | DeviceStatus::DRIVER_OK
}

pub fn reset() -> DeviceStatus {
    DeviceStatus::empty()
}

pub fn somewhere() -> QueueAddress {
    QueueAddress {
        descriptor: DmaAddr(0x1000),
        driver: DmaAddr(0x2000),
        device: DmaAddr(0x3000),
    }
}

pub const NO_FEATURES: BackendFeatures = BackendFeatures::empty();
