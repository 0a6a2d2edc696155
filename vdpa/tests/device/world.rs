//! A vDPA bus with one parent, and a consumer that does what the test says.

use std::sync::{Arc, Mutex};

use virtio::DeviceStatus;

use vdpa::Node;
use vdpa::bus::{Bound, Driver, ProbeError};
use vdpa::device::{
    DeviceKind, Removal, Removed, VdpaBus, VdpaClaim, VdpaDevice, VdpaDeviceConfig, VdpaId,
};
use vdpa::dma::IsolationUnit;
use vdpa::keeper::hold;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::{BoxFuture, Callback};
use vdpa::testing::{FakeParent, FakePlatform};
use virtq::DmaAddr;

/// A network device.
pub const NET: u32 = 1;

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub root: Arc<Node>,
    pub function: Arc<Node>,
    pub bus: Arc<VdpaBus>,
    pub parent: Arc<FakeParent>,
}

impl World {
    /// A device with two queues of at most 64 entries and 12 bytes of configuration.
    pub fn new() -> Self {
        let platform = FakePlatform::new();
        let root = Node::root("root");
        let function = Node::child(&root, "pci0000:00:04.0");
        let features = virtio::net::F::MAC | virtio::net::F::STATUS;
        let parent = FakeParent::new(&platform, NET, features, &[64, 64], &[7; 12]);
        Self {
            platform,
            root,
            function,
            bus: VdpaBus::new("vdpa"),
            parent,
        }
    }

    pub fn config(&self) -> VdpaDeviceConfig {
        VdpaDeviceConfig {
            parent: Arc::clone(&self.function),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: Arc::clone(&self.platform) as Arc<dyn vdpa::Platform>,
            kind: DeviceKind::Pf,
            name: None,
        }
    }

    pub async fn register(&self) -> Arc<VdpaDevice> {
        self.bus
            .register(self.parent.ops(), self.config())
            .await
            .expect("nothing is short")
    }

    /// A device that belongs to the test.
    pub async fn hold(&self) -> VdpaClaim {
        let device = self.register().await;
        hold(&self.bus, &device).await.expect("nobody has it")
    }

    pub async fn unregister(&self, device: &Arc<VdpaDevice>) -> Removed {
        self.bus.unregister(device, Removal::Orderly).await
    }
}

/// Takes the device as far as `FEATURES_OK`.
pub async fn negotiate(device: &VdpaClaim) -> Result<(), OpError> {
    device.reset().await?;
    device
        .set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER)
        .await?;
    device.set_driver_features(virtio::F::VERSION_1.into())?;
    device.set_status(agreed()).await
}

/// Takes the device as far as `DRIVER_OK`, with its first queue ready.
pub async fn start(device: &VdpaClaim) -> Result<(), OpError> {
    negotiate(device).await?;
    device.set_queue_callback(0, Some(Callback::new(|| ())))?;
    device.set_queue_size(0, 64)?;
    place_somewhere(device, 0)?;
    device.start_queue(0).await?;
    device.set_config_callback(Some(Callback::new(|| ())))?;
    device.set_status(agreed() | DeviceStatus::DRIVER_OK).await
}

pub fn agreed() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK
}

/// Gives a queue addresses that mean nothing.
pub fn place_somewhere(device: &VdpaClaim, queue: u16) -> Result<(), OpError> {
    // SAFETY: the fake has no memory to find there.
    unsafe { device.set_queue_address(queue, somewhere()) }
}

fn somewhere() -> QueueAddress {
    QueueAddress {
        descriptor: DmaAddr(0x1000),
        driver: DmaAddr(0x2000),
        device: DmaAddr(0x3000),
    }
}

/// A bus driver that starts its devices and notes what the device answers while it lets go.
pub struct Consumer {
    name: &'static str,
    ids: Vec<VdpaId>,
    pub answers: Arc<Mutex<Vec<&'static str>>>,
    /// Where the claim of its last device is kept, for longer than a driver should.
    pub last: Option<Mutex<Option<Arc<VdpaClaim>>>>,
}

impl Consumer {
    pub fn new(name: &'static str, ids: Vec<VdpaId>) -> Arc<Self> {
        Arc::new(Self {
            name,
            ids,
            answers: Arc::default(),
            last: None,
        })
    }

    /// One that keeps its claims.
    pub fn keeping(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            ids: Vec::from([VdpaId::Any]),
            answers: Arc::default(),
            last: Some(Mutex::default()),
        })
    }

    /// The claim that it keeps.
    pub fn kept(&self) -> Option<Arc<VdpaClaim>> {
        let last = self.last.as_ref()?;
        last.lock().expect("no test panics here").take()
    }
}

impl Driver<VdpaDevice> for Consumer {
    fn name(&self) -> &str {
        self.name
    }

    fn ids(&self) -> &[VdpaId] {
        &self.ids
    }

    fn probe<'a>(
        &'a self,
        device: VdpaClaim,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            start(&device).await?;
            let device = Arc::new(device);
            if let Some(last) = &self.last {
                *last.lock().expect("no test panics here") = Some(Arc::clone(&device));
            }
            let answers = Arc::clone(&self.answers);
            Ok(Box::new(Consumption { device, answers }) as Box<dyn Bound>)
        })
    }
}

struct Consumption {
    device: Arc<VdpaClaim>,
    answers: Arc<Mutex<Vec<&'static str>>>,
}

impl Bound for Consumption {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let answer = match self.device.status() {
                Ok(_) => "present",
                Err(OpError::Gone) => "gone",
                Err(_) => "failing",
            };
            self.answers
                .lock()
                .expect("no test panics here")
                .push(answer);
        })
    }
}

/// The device disappears.
pub fn surprise() -> Removal {
    // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
    unsafe { Removal::surprise() }
}
