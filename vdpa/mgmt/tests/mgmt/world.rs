//! A bus with management, workshops that make fake devices, and a function with a device of its
//! own.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use vdpa::bus::{Bound, Driver, ProbeError};
use vdpa::device::{DeviceKind, VdpaBus, VdpaClaim, VdpaDevice, VdpaDeviceConfig, VdpaId};
use vdpa::dma::IsolationUnit;
use vdpa::keeper::hold;
use vdpa::ops::OpError;
use vdpa::platform::BoxFuture;
use vdpa::testing::{FakeParent, FakePlatform};
use vdpa::{Features, Node, Platform};
use vdpa_mgmt::{
    AttributeSet, Attributes, CreateError, Handle, MacAddress, Management, ManagementDevice,
    MgmtError, Product, Settings,
};
use virtio::DeviceStatus;

pub const NET: u32 = 1;
pub const BLOCK: u32 = 2;
pub const CRYPTO: u32 = 20;

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub root: Arc<Node>,
    pub bus: Arc<VdpaBus>,
    pub management: Arc<Management>,
}

impl World {
    pub fn new() -> Self {
        let bus = VdpaBus::new("vdpa");
        let handle = |node: &Node| Handle::on_bus("pci", node.name().trim_start_matches("pci"));
        let management = Management::new(Arc::clone(&bus), handle);
        Self {
            platform: FakePlatform::new(),
            root: Node::root("root"),
            bus,
            management,
        }
    }

    /// Runs a test in this world with a workshop for each of these types of devices.
    pub fn run<F: Future<Output = ()>>(&self, test: F) {
        self.platform.block_on(test);
    }

    /// Registers a workshop for devices of these types.
    pub async fn open(&self, name: &str, classes: &[u32]) -> Arc<Workshop> {
        let workshop = Arc::new(Workshop::new(self, name, classes));
        let registered = self.management.register(Arc::<Workshop>::clone(&workshop));
        registered.await.unwrap();
        workshop
    }

    /// A function whose driver has put a device on the bus by itself.
    pub async fn plug(&self, address: &str, device_type: u32) -> Arc<VdpaDevice> {
        let function = Node::child(&self.root, &format!("pci{address}"));
        let parent = FakeParent::new(
            &self.platform,
            device_type,
            Features::EMPTY,
            &[64, 128],
            &[0; 64],
        );
        let config = config(&function, &self.platform);
        self.bus.register(parent.ops(), config).await.unwrap()
    }

    pub async fn add(
        &self,
        name: &str,
        manager: &str,
        attributes: Attributes,
    ) -> Result<Arc<VdpaDevice>, MgmtError> {
        let manager = manager.parse().unwrap();
        self.management.add(name, &manager, &attributes).await
    }
}

fn config(parent: &Arc<Node>, platform: &Arc<FakePlatform>) -> VdpaDeviceConfig {
    VdpaDeviceConfig {
        parent: Arc::clone(parent),
        dma: IsolationUnit::new(parent, None, None),
        platform: Arc::clone(platform) as Arc<dyn Platform>,
        kind: DeviceKind::Software,
        name: None,
    }
}

/// Makes fake devices.
pub struct Workshop {
    handle: Handle,
    classes: Vec<u32>,
    node: Arc<Node>,
    platform: Arc<FakePlatform>,
    /// The devices that were made, and what for.
    pub made: Mutex<Vec<(String, Attributes, Arc<FakeParent>)>>,
    /// The addresses that were set later.
    pub set: Arc<Mutex<Vec<MacAddress>>>,
    pub out_of_memory: AtomicBool,
}

impl Workshop {
    fn new(world: &World, name: &str, classes: &[u32]) -> Self {
        Self {
            handle: name.parse().unwrap(),
            classes: classes.to_vec(),
            node: Node::child(&world.root, name),
            platform: Arc::clone(&world.platform),
            made: Mutex::default(),
            set: Arc::default(),
            out_of_memory: AtomicBool::new(false),
        }
    }
}

impl ManagementDevice for Workshop {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn classes(&self) -> &[u32] {
        &self.classes
    }

    fn max_queues(&self) -> u32 {
        5
    }

    fn features(&self) -> Features {
        use virtio::net::F;
        Features::from(F::MAC | F::MTU | F::MQ | F::STATUS | F::CTRL_VQ)
            | virtio::F::VERSION_1.into()
    }

    fn attributes(&self) -> AttributeSet {
        AttributeSet::DEVICE_FEATURES
            | AttributeSet::MAC
            | AttributeSet::MTU
            | AttributeSet::MAX_VQP
            | AttributeSet::CAPACITY
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Product, CreateError>> {
        Box::pin(async move {
            // As real parents do: others run meanwhile.
            let mut yielded = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            if self.out_of_memory.load(Ordering::Relaxed) {
                return Err(CreateError::OutOfMemory { left: 0 });
            }
            let mut space = [0; 64];
            space[8] = 1;
            if let Some(mac) = attributes.mac {
                space[..6].copy_from_slice(&mac.0);
            }
            if let Some(mtu) = attributes.mtu {
                space[10..12].copy_from_slice(&mtu.to_le_bytes());
            }
            let features = attributes.device_features.unwrap_or(self.features());
            let class = self.classes[0];
            let parent = FakeParent::new(&self.platform, class, features, &[64, 64, 16], &space);
            let made = (name.to_owned(), attributes.clone(), Arc::clone(&parent));
            self.made.lock().unwrap().push(made);
            Ok(Product {
                ops: parent.ops(),
                config: config(&self.node, &self.platform),
                settings: Some(Arc::new(Notes(Arc::clone(&self.set)))),
            })
        })
    }
}

struct Notes(Arc<Mutex<Vec<MacAddress>>>);

impl Settings for Notes {
    fn set_mac(&self, mac: MacAddress) -> Result<(), OpError> {
        self.0.lock().unwrap().push(mac);
        Ok(())
    }
}

/// A bus driver that notes what it finds in the configuration space of a device when it first sees
/// it.
pub struct Onlooker(pub Arc<Mutex<Vec<Sight>>>);

/// A device's name, and the start of its configuration space.
pub type Sight = (String, [u8; 12]);

impl Driver<VdpaDevice> for Onlooker {
    fn name(&self) -> &'static str {
        "onlooker"
    }

    fn ids(&self) -> &[VdpaId] {
        &[VdpaId::Any]
    }

    fn probe<'a>(
        &'a self,
        device: VdpaClaim,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let mut bytes = [0; 12];
            device.read_config(0, &mut bytes)?;
            let seen = (device.node().name().to_owned(), bytes);
            self.0.lock().unwrap().push(seen);
            Ok(Box::new(Seen) as Box<dyn Bound>)
        })
    }
}

struct Seen;

impl Bound for Seen {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Takes the device from its driver, and as far as `FEATURES_OK`, with all that it offers.
pub async fn negotiate(w: &World, device: &Arc<VdpaDevice>) -> VdpaClaim {
    let device = hold(&w.bus, device).await.unwrap();
    device.reset().await.unwrap();
    let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    device.set_status(driver).await.unwrap();
    let offered = device.device_features().unwrap();
    device.set_driver_features(offered).unwrap();
    device
        .set_status(driver | DeviceStatus::FEATURES_OK)
        .await
        .unwrap();
    device
}
