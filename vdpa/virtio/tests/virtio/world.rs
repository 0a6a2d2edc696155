//! Both buses, a device with two queues, and a virtio driver that leaves its queues to the test.

use std::sync::{Arc, Mutex};

use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::device::{DeviceKind, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::ops::OpError;
use vdpa::platform::BoxFuture;
use vdpa::testing::{FakeParent, FakePlatform, HeapDma};
use vdpa::{Features, Node};
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{Completion, VirtQueue, VirtioBus, VirtioClaim, VirtioDevice, VirtioId};
use virtq::Writable;

pub const NET: u32 = 1;

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub root: Arc<Node>,
    pub vdpa: Arc<VdpaBus>,
    pub virtio: Arc<VirtioBus>,
    pub parent: Arc<FakeParent>,
    pub driver: Arc<TestDriver>,
}

impl World {
    /// A network device with everything that a ring can do.
    pub fn new() -> Self {
        let ring = Features::from(virtio::F::EVENT_IDX | virtio::F::INDIRECT_DESC);
        Self::with_device(HeapDma::new(), NET, ring | virtio::net::F::MAC.into())
    }

    pub fn with_device(heap: Arc<HeapDma>, device_type: u32, features: Features) -> Self {
        let platform = FakePlatform::with_heap(heap);
        let parent = FakeParent::new(&platform, device_type, features, &[64, 48], &[7; 8]);
        Self {
            root: Node::root("root"),
            vdpa: VdpaBus::new("vdpa"),
            virtio: VirtioBus::new("virtio"),
            driver: Arc::new(TestDriver::default()),
            platform,
            parent,
        }
    }

    /// Registers the drivers of both buses, then the device.
    pub async fn bring_up(&self) -> Arc<VdpaDevice> {
        let adapter = VirtioVdpa::new(Arc::clone(&self.virtio));
        self.vdpa
            .add_driver(Arc::new(adapter))
            .await
            .expect("a name of its own");
        self.virtio
            .add_driver(Arc::clone(&self.driver) as _)
            .await
            .expect("a name of its own");
        let config = VdpaDeviceConfig {
            parent: Node::child(&self.root, "pci0000:00:04.0"),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: Arc::clone(&self.platform) as Arc<dyn vdpa::Platform>,
            kind: DeviceKind::Pf,
            name: None,
        };
        self.vdpa
            .register(self.parent.ops(), config)
            .await
            .expect("nothing is short")
    }

    /// What the driver has got.
    pub fn take(&self) -> Setup {
        self.driver
            .setup
            .lock()
            .expect("no test panics here")
            .take()
            .expect("the driver is bound")
    }

    pub fn is_bound(&self) -> bool {
        self.virtio.unmatched().is_empty() && !self.virtio.devices().is_empty()
    }

    /// Bytes of DMA memory that are out.
    pub fn outstanding(&self) -> usize {
        self.platform.heap().outstanding()
    }
}

/// A device that runs, and its queues: one by interrupt, one polled.
pub struct Setup {
    pub device: Arc<VirtioClaim>,
    pub first: VirtQueue<Writable>,
    pub second: VirtQueue<Writable>,
}

#[derive(Default)]
pub struct TestDriver {
    pub setup: Arc<Mutex<Option<Setup>>>,
    /// Features without which it does not work.
    pub required: Mutex<Features>,
}

async fn set_up(device: &Arc<VirtioClaim>, required: Features) -> Result<Setup, OpError> {
    device
        .negotiate(virtio::net::F::MAC.into(), required)
        .await?;
    let first = device
        .create_queue(0, "first", 256, Completion::Interrupt)
        .await?;
    let second = device
        .create_queue(1, "second", 256, Completion::Polled)
        .await?;
    device.start().await?;
    Ok(Setup {
        device: Arc::clone(device),
        first,
        second,
    })
}

impl Driver<VirtioDevice> for TestDriver {
    fn name(&self) -> &'static str {
        "test"
    }

    fn ids(&self) -> &[VirtioId] {
        &[VirtioId {
            device_type: virtio::Id::Net,
        }]
    }

    fn probe<'a>(
        &'a self,
        device: Claim<VirtioDevice>,
        _id: Option<&'a VirtioId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let required = *self.required.lock().expect("no test panics here");
            let device = Arc::new(VirtioClaim::new(device));
            let setup = set_up(&device, required).await?;
            *self.setup.lock().expect("no test panics here") = Some(setup);
            let setup = Arc::clone(&self.setup);
            Ok(Box::new(Binding { device, setup }) as Box<dyn Bound>)
        })
    }
}

struct Binding {
    device: Arc<VirtioClaim>,
    setup: Arc<Mutex<Option<Setup>>>,
}

impl Bound for Binding {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // A device that is gone, or does not reset, is dealt with by the buses.
            let _ = self.device.reset().await;
            drop(self.setup.lock().expect("no test panics here").take());
        })
    }
}
