//! A machine with both consumers of vDPA devices, and tasks that serve disks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use embassy_futures::select::select;
use vdpa::device::{DeviceKind, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform, VdpaOps};
use vdpa_vduse::protocol::DeviceConfig;
use vdpa_vduse::{Control, Options, Task, TaskDevice, TaskError, Turn, serve};
use vhost_vdpa::{VhostRegistry, VhostVdpa};
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{Registry, VirtioBus};
use virtq::Event;

use crate::disk::RamDisk;

/// How long the tasks have for an answer.
pub const DEADLINE: Duration = Duration::from_secs(3);

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub kernel: Arc<dyn Platform>,
    pub control: Arc<Control>,
    pub root: Arc<Node>,
    pub vdpa: Arc<VdpaBus>,
    pub vhost: Arc<VhostRegistry>,
    pub disks: Arc<Registry<Disk>>,
}

impl World {
    pub fn new() -> Self {
        Self::on(FakePlatform::new())
    }

    pub fn on(platform: Arc<FakePlatform>) -> Self {
        let kernel = Arc::clone(&platform) as Arc<dyn Platform>;
        let virtio = VirtioBus::new("virtio");
        let vdpa = VdpaBus::new("vdpa");
        let vhost = VhostRegistry::new();
        let disks = platform.block_on(async {
            let disks = drivers(&virtio).await;
            let adapter = VirtioVdpa::new(virtio);
            vdpa.add_driver(Arc::new(adapter)).await.unwrap();
            let shim = VhostVdpa::new(Arc::clone(&vhost), []);
            vdpa.add_driver(Arc::new(shim)).await.unwrap();
            disks
        });
        Self {
            control: Control::new(&kernel),
            root: Node::root("root"),
            platform,
            kernel,
            vdpa,
            vhost,
            disks,
        }
    }

    /// Registers a device, which the virtio side claims.
    pub async fn add(&self, ops: Box<dyn VdpaOps>) -> Arc<VdpaDevice> {
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.root),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: Arc::clone(&self.kernel),
            kind: DeviceKind::Software,
            name: None,
        };
        self.vdpa.register(ops, config).await.unwrap()
    }

    /// Creates the device `disk`, and opens it for its task.
    pub fn open_disk(&self, disk: &Shared) -> Task {
        let disk = disk.0.lock().unwrap();
        let options = Options {
            deadline: DEADLINE,
            ..Options::default()
        };
        self.control.create(&disk.config("disk"), options).unwrap();
        let task = self.control.open("disk").unwrap();
        disk.set_up(&task).unwrap();
        task
    }

    /// Creates the device `disk` and serves it, until the event is raised.
    pub fn run_disk(&self, disk: &Shared) -> Arc<Event> {
        self.run_task(self.open_disk(disk), Box::new(disk.clone()))
    }

    /// Serves a device until the event is raised: then the task is gone, whatever it was about to
    /// do.
    pub fn run_task(&self, task: Task, mut device: Box<dyn TaskDevice>) -> Arc<Event> {
        let stop = Arc::<Event>::default();
        let stopped = Arc::clone(&stop);
        let running = async move {
            select(stopped.wait(), serve(&task, &mut *device)).await;
        };
        self.platform.spawn("task", Box::pin(running));
        stop
    }
}

/// The driver of disks, on a virtio bus.
pub async fn drivers(bus: &Arc<VirtioBus>) -> Arc<Registry<Disk>> {
    let disks = Registry::new();
    let driver = BlkDriver::new(Arc::clone(&disks));
    bus.add_driver(Arc::new(driver)).await.unwrap();
    disks
}

/// A disk whose contents outlive its task.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<RamDisk<Vec<u8>>>>);

impl Shared {
    pub fn disk() -> Self {
        Self(Arc::new(Mutex::new(RamDisk::new(vec![0; 1 << 17], 1))))
    }

    pub fn config(&self, name: &str) -> DeviceConfig {
        self.0.lock().unwrap().config(name)
    }
}

impl TaskDevice for Shared {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        self.0.lock().unwrap().serve(task)
    }
}
