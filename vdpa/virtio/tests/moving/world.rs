//! Both buses with their drivers, and devices that come, wait and go.

use std::sync::Arc;

use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::IovaRange;
use vdpa::testing::FakePlatform;
use vdpa::{Features, Node, Platform, VdpaOps};
use vdpa_sim::{
    AccessPlatform, RamDisk, SimBlk, SimBlkConfig, SimConfig, SimNet, SimNetConfig, Storage,
};
use vhost_vdpa::{OpenOptions, VhostHandle, VhostRegistry, VhostVdpa};
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::Registry;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{MoveError, VirtioBus, VirtioDevice};
use virtio_net::{NetDevice, NetDriver, NetOptions};

/// 4 MiB.
pub(crate) const CAPACITY: u64 = 4 << 20;

/// Two registries of what the drivers of one virtio bus have made.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) disks: Arc<Registry<Disk>>,
    pub(crate) nets: Arc<Registry<NetDevice>>,
}

pub(crate) struct World {
    pub(crate) platform: Arc<FakePlatform>,
    pub(crate) kernel: Arc<dyn Platform>,
    pub(crate) root: Arc<Node>,
    pub(crate) vdpa: Arc<VdpaBus>,
    pub(crate) virtio: Arc<VirtioBus>,
    pub(crate) adapter: Arc<VirtioVdpa>,
    pub(crate) vhost: Arc<VhostRegistry>,
    pub(crate) made: Made,
}

impl World {
    pub(crate) fn new() -> Self {
        let platform = FakePlatform::new();
        let virtio = VirtioBus::new("virtio");
        let world = Self {
            kernel: Arc::clone(&platform) as Arc<dyn Platform>,
            platform,
            root: Node::root("root"),
            vdpa: VdpaBus::new("vdpa"),
            adapter: Arc::new(VirtioVdpa::new(Arc::clone(&virtio))),
            vhost: VhostRegistry::new(),
            made: Made::none(),
            virtio,
        };
        world.platform.block_on(async {
            world.made.add_drivers(&world.virtio).await;
            let adapter = Arc::clone(&world.adapter);
            world.vdpa.add_driver(adapter).await.unwrap();
            let shim = VhostVdpa::new(Arc::clone(&world.vhost), []);
            world.vdpa.add_driver(Arc::new(shim)).await.unwrap();
        });
        world
    }

    /// Registers a device, which the virtio side claims.
    pub(crate) async fn add(&self, ops: Box<dyn VdpaOps>) -> Arc<VdpaDevice> {
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.root),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: Arc::clone(&self.kernel),
            kind: DeviceKind::Software,
            name: None,
        };
        self.vdpa.register(ops, config).await.unwrap()
    }

    /// Registers a device that no driver may have.
    pub(crate) async fn add_spare(&self, ops: Box<dyn VdpaOps>) -> Arc<VdpaDevice> {
        let device = self.add(ops).await;
        self.vdpa.set_override(&device, Some("nobody")).await;
        assert_eq!(self.vdpa.driver_of(&device), None);
        device
    }

    /// Registers a device for a client, and opens it.
    pub(crate) async fn add_open(&self, ops: Box<dyn VdpaOps>) -> (Arc<VdpaDevice>, VhostHandle) {
        let device = self.add(ops).await;
        self.vdpa.set_override(&device, Some("vhost_vdpa")).await;
        let name = self.vhost.names().pop().unwrap();
        let handle = self.vhost.open(&name, OpenOptions::default()).await;
        (device, handle.unwrap())
    }

    pub(crate) async fn move_device(
        &self,
        from: &Arc<VdpaDevice>,
        to: &Arc<VdpaDevice>,
    ) -> Result<(), MoveError> {
        self.adapter.move_device(&self.vdpa, from, to).await
    }

    pub(crate) fn sim_blk(&self, disk: &Arc<RamDisk>, sim: &SimConfig) -> Box<dyn VdpaOps> {
        let config = SimBlkConfig {
            disk: Arc::clone(disk),
            block_size: 512,
            queues: 1,
            access: vdpa_sim::Access::ReadWrite,
            sim: sim.clone(),
        };
        SimBlk::new(&config, &self.kernel).unwrap()
    }

    pub(crate) fn sim_net(&self, sim: &SimConfig) -> Box<dyn VdpaOps> {
        let config = SimNetConfig {
            sim: sim.clone(),
            ..SimNetConfig::default()
        };
        SimNet::new(config, &self.kernel).unwrap().1
    }

    /// The only device of the virtio bus.
    pub(crate) fn virtio_device(&self) -> Arc<VirtioDevice> {
        let mut devices = self.virtio.devices();
        assert_eq!(devices.len(), 1);
        devices.remove(0)
    }

    /// Lets a task run beside the test.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.platform.spawn("test", Box::pin(task));
    }

    /// Bytes of DMA memory that are out.
    pub(crate) fn memory(&self) -> usize {
        self.platform.heap().outstanding()
    }
}

impl Made {
    pub(crate) fn none() -> Self {
        Self {
            disks: Registry::new(),
            nets: Registry::new(),
        }
    }

    /// Puts both drivers on a virtio bus.
    pub(crate) async fn add_drivers(&self, bus: &Arc<VirtioBus>) {
        let blk = BlkDriver::new(Arc::clone(&self.disks));
        bus.add_driver(Arc::new(blk)).await.unwrap();
        let net = NetDriver::new(Arc::clone(&self.nets), NetOptions::default());
        bus.add_driver(Arc::new(net)).await.unwrap();
    }
}

pub(crate) fn ram_disk() -> Arc<RamDisk> {
    RamDisk::new(CAPACITY, Storage::Sparse).unwrap()
}

/// Simulators with these features.
pub(crate) fn sim_with(features: Features) -> SimConfig {
    SimConfig {
        features: Some(features),
        ..SimConfig::default()
    }
}

/// A simulator that takes over from hardware, at whatever addresses its driver uses.
pub(crate) fn sim_anywhere() -> SimConfig {
    SimConfig {
        access_platform: AccessPlatform::Optional,
        iova_range: IovaRange::ALL,
        ..SimConfig::default()
    }
}

/// How often a queue has done something, as the device counts it.
pub(crate) fn counted(device: &VdpaDevice, queue: u16, what: &str) -> u64 {
    let counters = device.queue_statistics(queue).unwrap();
    let counter = counters.iter().find(|(name, _)| *name == what);
    counter.map(|(_, count)| *count).unwrap()
}

/// The device disappears.
pub fn surprise() -> Removal {
    // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
    unsafe { Removal::surprise() }
}
