//! A machine with two simulated devices that clients can open.

use std::sync::Arc;

use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDevice, VdpaDeviceConfig, VdpaId};
use vdpa::dma::IsolationUnit;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform, VdpaOps};
use vdpa_sim::{
    Access, Flavour, RamDisk, SimBlk, SimBlkConfig, SimConfig, SimNet, SimNetConfig, Storage,
};
use vhost_vdpa::{OpenOptions, VhostError, VhostHandle, VhostRegistry, VhostVdpa};
use virtq::{DmaAllocator, SharedMemory};

const DISK_LEN: u64 = 64 << 10;
const QUEUE_SIZE: u16 = 16;

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub bus: Arc<VdpaBus>,
    pub registry: Arc<VhostRegistry>,
    root: Arc<Node>,
}

/// What kind of device.
#[derive(Clone, Copy)]
pub enum Kind {
    Blk,
    Net,
}

impl World {
    pub fn new() -> Self {
        let platform = FakePlatform::new();
        let (bus, registry) = (VdpaBus::new("vdpa"), VhostRegistry::new());
        let driver = VhostVdpa::new(Arc::clone(&registry), [VdpaId::Any]);
        platform
            .block_on(bus.add_driver(Arc::new(driver)))
            .expect("the only driver");
        Self {
            platform,
            bus,
            registry,
            root: Node::root("root"),
        }
    }

    pub fn add(&self, kind: Kind, flavour: Flavour) -> Arc<VdpaDevice> {
        let platform = Arc::clone(&self.platform) as Arc<dyn Platform>;
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.root),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: Arc::clone(&platform),
            kind: DeviceKind::Software,
            name: None,
        };
        let ops = ops(kind, flavour, &platform);
        self.platform
            .block_on(self.bus.register(ops, config))
            .expect("nothing is short")
    }

    pub fn remove(&self, device: &Arc<VdpaDevice>, removal: Removal) {
        self.platform.block_on(self.bus.unregister(device, removal));
    }

    pub fn open(
        &self,
        device: &VdpaDevice,
        options: OpenOptions,
    ) -> Result<VhostHandle, VhostError> {
        let children = device.node().children();
        let name = children
            .first()
            .ok_or(VhostError::NotFound)?
            .name()
            .to_owned();
        self.platform.block_on(self.registry.open(&name, options))
    }

    pub fn memory(&self, len: usize) -> SharedMemory {
        let dma = Arc::clone(self.platform.heap()) as Arc<dyn DmaAllocator>;
        SharedMemory::new(&dma, len).expect("a host has memory")
    }

    /// Lets every task go on until all of them wait.
    pub fn settle(&self) {
        self.platform.run_until_stalled();
    }
}

fn ops(kind: Kind, flavour: Flavour, platform: &Arc<dyn Platform>) -> Box<dyn VdpaOps> {
    let sim = SimConfig {
        flavour,
        queue_size: QUEUE_SIZE,
        ..SimConfig::default()
    };
    let made = match kind {
        Kind::Blk => {
            let disk = RamDisk::new(DISK_LEN, Storage::Sparse).expect("a host has memory");
            let config = SimBlkConfig {
                disk,
                block_size: 512,
                queues: 2,
                access: Access::ReadWrite,
                sim,
            };
            SimBlk::new(&config, platform)
        }
        Kind::Net => {
            let config = SimNetConfig {
                sim,
                ..SimNetConfig::default()
            };
            SimNet::new(config, platform).map(|(_, ops)| ops)
        }
    };
    made.expect("a device as any other")
}
