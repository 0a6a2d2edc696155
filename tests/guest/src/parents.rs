//! Devices under the vDPA bus that a test makes or finds, and their way to either consumer.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use pci::PciDevice;
use vdpa::bus::BusDevice;
use vdpa::device::{DeviceKind, Removal, Removed, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::{Isolation, IsolationUnit, Trust};
use vdpa::{Node, Platform, VdpaOps};
use vdpa_sim::{
    Access, CreateError, Flavour, RamDisk, SimBlk, SimBlkConfig, SimConfig, SimNet, SimNetConfig,
    Storage,
};
use vhost_vdpa::vhost_client::{Client, ClientOptions};
use vhost_vdpa::{OpenOptions, VhostHandle};
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::Registry;
use virtio_bus::VirtioBus;
use virtio_net::{NetDevice, NetDriver, NetOptions};

use crate::bench::Bench;
use crate::outcome::Failure;

/// No driver has this name, so a device that is for it alone stays without.
pub const NOBODY: &str = "nobody";

/// The bus driver that makes devices the kernel's own.
pub const KERNEL: &str = "virtio_vdpa";

/// The bus driver that lends devices to clients.
pub const VHOST: &str = "vhost_vdpa";

/// The vendor of the subsystem of an IFC VF.
const INTEL: u16 = 0x8086;

/// How large simulated disks are, in bytes.
pub const CAPACITY: u64 = 1 << 20;

impl Bench {
    /// Puts a device on the vDPA bus, where `virtio_vdpa` claims it.
    pub async fn register(&self, ops: Box<dyn VdpaOps>) -> Result<Arc<VdpaDevice>, Failure> {
        let parent = self.system.devices();
        let config = VdpaDeviceConfig {
            parent: Arc::clone(parent),
            dma: IsolationUnit::new(parent, None, None),
            platform: Arc::clone(self.system.platform()),
            kind: DeviceKind::Software,
            name: None,
        };
        Ok(self.system.vdpa().register(ops, config).await?)
    }

    /// As [`register`](Self::register), and takes it from its driver.
    pub async fn register_unused(&self, ops: Box<dyn VdpaOps>) -> Result<Arc<VdpaDevice>, Failure> {
        let device = self.register(ops).await?;
        let bus = self.system.vdpa();
        bus.set_override(&device, Some(NOBODY)).await;
        Ok(device)
    }

    /// Takes a device off the bus.
    pub async fn unregister(&self, device: &Arc<VdpaDevice>) -> Result<(), Failure> {
        let removed = self.system.vdpa().unregister(device, Removal::Orderly);
        match removed.await {
            Removed::Clean => Ok(()),
            Removed::Leaked { queues } => {
                Err(Failure::Failed(format!("{queues} queues were lost")))
            }
        }
    }

    /// The disk that the kernel's driver has made of a device.
    pub async fn new_disk(&self, device: &VdpaDevice) -> Result<Disk, Failure> {
        let name = self.child_of(device)?;
        self.disk_called(&name).await
    }

    /// The interface that the kernel's driver has made of a device.
    pub fn new_net(&self, device: &VdpaDevice) -> Result<NetDevice, Failure> {
        let name = self.child_of(device)?;
        let nets = self.system.nets();
        let net = nets.take().filter(|net| net.name() == name);
        net.ok_or_else(|| Failure::from("the interface has not been published"))
    }

    /// What a virtio driver has made of a device.
    fn child_of(&self, device: &VdpaDevice) -> Result<String, Failure> {
        let virtio = device.node().children();
        let child = virtio.first().and_then(|node| node.children().pop());
        let child = child.ok_or_else(|| Failure::from("no driver has the device"))?;
        Ok(child.name().to_string())
    }

    /// The vDPA device below the interface or disk `name` of the kernel's drivers.
    pub fn vdpa_device(&self, name: &str) -> Result<Arc<VdpaDevice>, Failure> {
        let node = self.virtio_device(name)?.node().parent();
        let devices = self.system.vdpa().devices().into_iter();
        let mut below = devices.filter(|device| is(&node, device.node()));
        below
            .next()
            .ok_or_else(|| Failure::from("it is on no vDPA device"))
    }

    /// The PCI function of a vDPA device.
    pub fn function(&self, device: &VdpaDevice) -> Result<Arc<PciDevice>, Failure> {
        let node = device.node().parent();
        let functions = self.system.pci().devices().into_iter();
        let mut below = functions.filter(|function| is(&node, function.node()));
        below
            .next()
            .ok_or_else(|| Failure::from("it is no PCI function"))
    }

    /// The parent driver that must have taken a virtio function: that of the IFC VF, if it is one
    /// or the host has asked for that.
    pub fn parent_of(&self, function: &PciDevice) -> &'static str {
        let asked = self.system.command_line().get("ifcvf") == Some("qemu");
        if asked || function.identity().subvendor == INTEL {
            "ifcvf"
        } else {
            "vp_vdpa"
        }
    }

    /// Takes a device from the kernel's drivers and opens it as a client. Without an IOMMU nothing
    /// isolates a client of a PCI function, and these are trusted.
    pub async fn open(&self, device: &Arc<VdpaDevice>) -> Result<VhostHandle, Failure> {
        self.system.vdpa().set_override(device, Some(VHOST)).await;
        let name = device
            .node()
            .children()
            .first()
            .map(|node| node.name().to_string());
        let name: String = name.ok_or_else(|| Failure::from("vhost does not take the device"))?;
        let trust = match device.isolation() {
            Isolation::OnChip | Isolation::Iommu => Trust::Isolated,
            // SAFETY: the client's rings are of memory of its own.
            Isolation::None => unsafe { Trust::unsafe_no_iommu() },
        };
        let options = OpenOptions {
            trust,
            ..OpenOptions::default()
        };
        Ok(self.system.vhost().open(&name, options).await?)
    }

    /// Gives a device back to the kernel's drivers.
    pub async fn give_back(&self, device: &Arc<VdpaDevice>) {
        let bus = self.system.vdpa();
        bus.set_override(device, Some(KERNEL)).await;
        bus.set_override(device, None).await;
    }
}

/// A RAM disk.
pub fn ram_disk() -> Result<Arc<RamDisk>, CreateError> {
    RamDisk::new(CAPACITY, Storage::Sparse)
}

/// A simulated disk, not on the bus yet.
pub fn sim_blk(
    disk: &Arc<RamDisk>,
    sim: SimConfig,
    platform: &Arc<dyn Platform>,
) -> Result<Box<dyn VdpaOps>, CreateError> {
    let config = SimBlkConfig {
        disk: Arc::clone(disk),
        block_size: 512,
        queues: 1,
        access: Access::ReadWrite,
        sim,
    };
    SimBlk::new(&config, platform)
}

/// A simulated network card in loopback, not on the bus yet, and its handle.
pub fn sim_net(
    sim: SimConfig,
    platform: &Arc<dyn Platform>,
) -> Result<(SimNet, Box<dyn VdpaOps>), CreateError> {
    let config = SimNetConfig {
        sim,
        ..SimNetConfig::default()
    };
    SimNet::new(config, platform)
}

fn is(wanted: &Option<Arc<Node>>, node: &Arc<Node>) -> bool {
    wanted
        .as_ref()
        .is_some_and(|wanted| Arc::ptr_eq(wanted, node))
}

/// How the simulators are told what is mapped.
pub fn flavour(flavour: Flavour) -> SimConfig {
    SimConfig {
        flavour,
        ..SimConfig::default()
    }
}

/// A client's own virtio bus with the same drivers as the kernel's, and what they have made of the
/// device that it has opened.
pub struct ClientSide {
    pub disks: Arc<Registry<Disk>>,
    pub nets: Arc<Registry<NetDevice>>,
    client: Client,
    _bus: Arc<VirtioBus>,
}

impl ClientSide {
    /// Gives the device that has been opened to the client's drivers.
    pub async fn start(bench: &Bench, handle: VhostHandle) -> Result<Self, Failure> {
        let bus = VirtioBus::new("client");
        let (disks, nets) = (Registry::new(), Registry::new());
        bus.add_driver(Arc::new(BlkDriver::new(Arc::clone(&disks))))
            .await?;
        let net = NetDriver::new(Arc::clone(&nets), NetOptions::default());
        bus.add_driver(Arc::new(net)).await?;
        let platform = bench.system.platform();
        let client = Client::attach(handle, platform, &bus, ClientOptions::default()).await?;
        Ok(Self {
            disks,
            nets,
            client,
            _bus: bus,
        })
    }

    /// The disk that the client's driver has found.
    pub fn disk(&self) -> Result<Disk, Failure> {
        let disk = self.disks.take();
        disk.ok_or_else(|| Failure::from("the client has no disk"))
    }

    /// The interface that the client's driver has found.
    pub fn net(&self) -> Result<NetDevice, Failure> {
        let net = self.nets.take();
        net.ok_or_else(|| Failure::from("the client has no interface"))
    }

    /// Closes the device.
    pub async fn end(self) {
        self.client.detach().await;
    }
}
