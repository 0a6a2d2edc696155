//! A device of software for as long as a row needs it, behind one of the two bus drivers.

use alloc::boxed::Box;
use alloc::sync::Arc;

use kernel::System;
use vdpa::VdpaOps;
use vdpa::device::{DeviceKind, Removal, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa_sim::{Access, RamDisk, SimBlk, SimBlkConfig, SimConfig, SimNet, SimNetConfig, Storage};
use vhost_vdpa::OpenOptions;
use vhost_vdpa::vhost_client::{Client, ClientOptions};
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::Registry;
use virtio_bus::VirtioBus;
use virtio_net::{NetDevice, NetDriver, NetOptions};

use crate::Failure;
use crate::task;

/// The size of a disk in bytes: more than the caches of a processor hold.
pub const DISK_LEN: u64 = 16 << 20;

/// The name of the bus driver for clients.
const VHOST: &str = "vhost_vdpa";

/// A client of vhost with drivers on a virtio bus of its own.
pub struct Vhost {
    bus: Arc<VirtioBus>,
    /// What its drivers have made of the devices.
    pub disks: Arc<Registry<Disk>>,
    /// Likewise.
    pub nets: Arc<Registry<NetDevice>>,
}

/// A device and the client that has opened it, if it is behind vhost.
pub struct Simulated {
    device: Arc<VdpaDevice>,
    client: Option<Client>,
    /// What serves it, unless it serves itself.
    task: Option<task::Running>,
}

impl Vhost {
    /// A client. Devices reach it when they are given to [`VHOST`] by name.
    pub async fn new() -> Result<Self, Failure> {
        let vhost = Self {
            bus: VirtioBus::new("client"),
            disks: Registry::new(),
            nets: Registry::new(),
        };
        let blk = BlkDriver::new(Arc::clone(&vhost.disks));
        vhost.bus.add_driver(Arc::new(blk)).await?;
        let net = NetDriver::new(Arc::clone(&vhost.nets), NetOptions::default());
        vhost.bus.add_driver(Arc::new(net)).await?;
        Ok(vhost)
    }

    /// Opens the device that has come last.
    async fn open(&self, system: &System) -> Result<Client, Failure> {
        let registry = system.vhost();
        let name = registry.names().pop().ok_or("no device is there to open")?;
        let handle = registry.open(&name, OpenOptions::default()).await?;
        let options = ClientOptions::default();
        Ok(Client::attach(handle, system.platform(), &self.bus, options).await?)
    }
}

impl Simulated {
    /// A disk.
    pub async fn disk(system: &System, vhost: Option<&Vhost>) -> Result<Self, Failure> {
        let config = SimBlkConfig {
            disk: RamDisk::new(DISK_LEN, Storage::Plain)?,
            block_size: 512,
            queues: 1,
            access: Access::ReadWrite,
            sim: SimConfig::default(),
        };
        let ops = SimBlk::new(&config, system.platform())?;
        Self::register(system, vhost, ops).await
    }

    /// A disk that a task serves.
    pub async fn disk_of_a_task(system: &System, vhost: Option<&Vhost>) -> Result<Self, Failure> {
        let (ops, task) = task::disk(system)?;
        let mut simulated = Self::register(system, vhost, ops).await?;
        simulated.task = Some(task);
        Ok(simulated)
    }

    /// A network card whose frames come back to it.
    pub async fn net(system: &System, vhost: Option<&Vhost>) -> Result<Self, Failure> {
        let (_, ops) = SimNet::new(SimNetConfig::default(), system.platform())?;
        Self::register(system, vhost, ops).await
    }

    /// Takes the device away.
    pub async fn remove(self, system: &System) {
        if let Some(client) = self.client {
            client.detach().await;
        }
        system
            .vdpa()
            .unregister(&self.device, Removal::Orderly)
            .await;
        drop(self.device);
        if let Some(task) = self.task {
            task.end(system).await;
        }
    }

    async fn register(
        system: &System,
        vhost: Option<&Vhost>,
        ops: Box<dyn VdpaOps>,
    ) -> Result<Self, Failure> {
        let config = VdpaDeviceConfig {
            parent: Arc::clone(system.devices()),
            dma: IsolationUnit::new(system.devices(), None, None),
            platform: Arc::clone(system.platform()),
            kind: DeviceKind::Software,
            name: None,
        };
        let device = system.vdpa().register(ops, config).await?;
        let client = match vhost {
            None => None,
            Some(vhost) => {
                system.vdpa().set_override(&device, Some(VHOST)).await;
                Some(vhost.open(system).await?)
            }
        };
        Ok(Self {
            device,
            client,
            task: None,
        })
    }
}
