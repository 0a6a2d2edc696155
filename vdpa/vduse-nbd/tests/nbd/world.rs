//! A machine with both consumers of vDPA devices, and disks on servers.

use std::sync::Arc;
use std::time::Duration;

use vdpa::device::{DeviceKind, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform, VdpaOps};
use vdpa_vduse::{Control, Options, serve};
use vduse_nbd::{NbdDevice, Served, Signals, config, set_up};
use vhost_vdpa::{VhostRegistry, VhostVdpa};
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{Registry, VirtioBus};

use crate::link::Link;

/// How long a task has for an answer, and how long a disk tries to come to rest.
const DEADLINE: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_secs(1);

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub kernel: Arc<dyn Platform>,
    pub control: Arc<Control>,
    pub vdpa: Arc<VdpaBus>,
    pub adapter: Arc<VirtioVdpa>,
    pub vhost: Arc<VhostRegistry>,
    pub disks: Arc<Registry<Disk>>,
    root: Arc<Node>,
}

/// A disk's task and its connection refer to it for as long as the test runs.
#[derive(Clone, Copy)]
pub struct Remote {
    pub device: &'static spin::Mutex<NbdDevice>,
    pub signals: &'static Signals,
}

impl Remote {
    pub fn new() -> Self {
        Self {
            device: Box::leak(Box::new(spin::Mutex::new(NbdDevice::new("disk")))),
            signals: Box::leak(Box::default()),
        }
    }
}

impl World {
    pub fn new() -> Self {
        let platform = FakePlatform::new();
        let kernel = Arc::clone(&platform) as Arc<dyn Platform>;
        let virtio = VirtioBus::new("virtio");
        let world = Self {
            control: Control::new(&kernel),
            root: Node::root("root"),
            vdpa: VdpaBus::new("vdpa"),
            vhost: VhostRegistry::new(),
            disks: Registry::new(),
            adapter: Arc::new(VirtioVdpa::new(Arc::clone(&virtio))),
            platform,
            kernel,
        };
        world.platform.block_on(async {
            drivers(&virtio, &world.disks).await;
            let adapter = Arc::clone(&world.adapter);
            world.vdpa.add_driver(adapter).await.unwrap();
            let shim = VhostVdpa::new(Arc::clone(&world.vhost), []);
            world.vdpa.add_driver(Arc::new(shim)).await.unwrap();
        });
        world
    }

    /// One in which a disk of `len` bytes, on a server with these abilities, is offered as `nbd`.
    pub fn served(len: usize, flags: u16) -> (Self, Arc<Link>) {
        let (world, link) = (Self::new(), Link::new(len, flags));
        world.offer("nbd", &link);
        (world, link)
    }

    /// A disk on this server is offered under a name, and served.
    pub fn offer(&self, name: &str, link: &Arc<Link>) -> Remote {
        let remote = Remote::new();
        let Remote { device, signals } = remote;
        let running = Arc::clone(link).run(device, signals, Arc::clone(&self.kernel));
        self.platform.spawn("link", Box::pin(running));
        self.platform.block_on(async {
            while device.lock().export().is_none() {
                self.platform.sleep(Duration::from_millis(1)).await;
            }
        });
        self.offer_known(name, remote);
        remote
    }

    /// The same, once the export is known.
    pub fn offer_known(&self, name: &str, remote: Remote) {
        let Remote { device, signals } = remote;
        let options = Options {
            deadline: DEADLINE,
            ..Options::default()
        };
        let export = device.lock().export().unwrap();
        self.control
            .create(&config(name, &export), options)
            .unwrap();
        let task = Arc::new(self.control.open(name).unwrap());
        set_up(&task).unwrap();
        device.lock().begin(Arc::clone(&task));
        let serving = async move {
            let mut served = Served { device, signals };
            serve(&task, &mut served).await;
        };
        self.platform.spawn("task", Box::pin(serving));
        let kernel = Arc::clone(&self.kernel);
        let limiting = async move {
            loop {
                signals.rest.wait().await;
                let attempt = device.lock().resting();
                if let Some(attempt) = attempt {
                    kernel.sleep(REST).await;
                    device.lock().refuse_rest(attempt);
                }
            }
        };
        self.platform.spawn("limit", Box::pin(limiting));
    }

    /// Registers a device, which the virtio side claims.
    pub async fn attach(&self, name: &str) -> Arc<VdpaDevice> {
        self.add(self.control.attach(name).unwrap()).await
    }

    async fn add(&self, ops: Box<dyn VdpaOps>) -> Arc<VdpaDevice> {
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.root),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: Arc::clone(&self.kernel),
            kind: DeviceKind::Software,
            name: None,
        };
        self.vdpa.register(ops, config).await.unwrap()
    }
}

/// The driver of disks, on a virtio bus.
pub async fn drivers(bus: &Arc<VirtioBus>, disks: &Arc<Registry<Disk>>) {
    let driver = BlkDriver::new(Arc::clone(disks));
    bus.add_driver(Arc::new(driver)).await.unwrap();
}
