//! Client tasks: each drives one vDPA device through vhost, with memory of its own and with the
//! same drivers as the kernel.
//!
//! What their drivers make of the devices goes where the kernel's drivers put theirs, so that an
//! application sees no difference.

use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::Platform;
use vdpa::device::VdpaId;
use vdpa::dma::Trust;
use vhost_vdpa::vhost_client::{Client, ClientError, ClientOptions};
use vhost_vdpa::{OpenOptions, VhostError, VhostRegistry, VhostVdpa};
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::Registry;
use virtio_bus::VirtioBus;
use virtio_net::{NetDevice, NetDriver, NetOptions};

use crate::machine::drivers::add_driver;
use crate::machine::memory::heap;
use crate::machine::task;
use crate::pure::data_paths::{DataPath, DataPaths, OPT_IN, WithoutIommu};

/// A client's memory, in bytes: a part of all memory between these limits.
const ARENA_PART: usize = 16;
const ARENA_LEAST: usize = 4 << 20;
const ARENA_MOST: usize = 16 << 20;

/// The clients of all devices that can be opened.
#[derive(Debug)]
pub(crate) struct Clients {
    registry: Arc<VhostRegistry>,
    bus: Arc<VirtioBus>,
    platform: Arc<dyn Platform>,
    /// The types of the devices that clients are started for; others wait to be opened.
    types: Vec<u32>,
    without_iommu: WithoutIommu,
}

impl Clients {
    /// Clients whose drivers put their devices into these registries.
    pub(crate) async fn new(
        platform: &Arc<dyn Platform>,
        nets: &Arc<Registry<NetDevice>>,
        disks: &Arc<Registry<Disk>>,
        paths: DataPaths,
    ) -> Arc<Self> {
        let bus = VirtioBus::new("client");
        let net = NetDriver::new(Arc::clone(nets), NetOptions::default());
        add_driver(&bus, Arc::new(net)).await;
        let blk = BlkDriver::new(Arc::clone(disks));
        add_driver(&bus, Arc::new(blk)).await;
        let types = [(virtio::Id::Net, paths.net), (virtio::Id::Block, paths.blk)];
        let for_clients = types
            .into_iter()
            .filter(|(_, path)| *path == DataPath::Vhost);
        Arc::new(Self {
            registry: VhostRegistry::new(),
            bus,
            platform: Arc::clone(platform),
            types: for_clients.map(|(each, _)| u8::from(each).into()).collect(),
            without_iommu: paths.without_iommu,
        })
    }

    /// The driver that lends devices to clients. It takes those that clients are started for, and
    /// others only where an override names it.
    pub(crate) fn driver(&self) -> VhostVdpa {
        let ids: Vec<_> = self.types.iter().copied().map(VdpaId::Type).collect();
        VhostVdpa::new(Arc::clone(&self.registry), ids)
    }

    /// Where clients find devices.
    pub(crate) fn registry(&self) -> &Arc<VhostRegistry> {
        &self.registry
    }

    /// Starts clients for the devices that are there; when it returns, their drivers are at work.
    /// From then on a task starts one for each device that comes.
    pub(crate) async fn start(self: &Arc<Self>) {
        for _ in 0..self.registry.names().len() {
            self.start_next().await;
        }
        let clients = Arc::clone(self);
        task::spawn("vhost clients", async move {
            loop {
                clients.start_next().await;
            }
        });
    }

    async fn start_next(&self) {
        let name = self.registry.next().await;
        let device_type = self.registry.device_type(&name);
        if !device_type.is_some_and(|device_type| self.types.contains(&device_type)) {
            return;
        }
        match self.start_client(&name).await {
            Ok(client) => {
                let device = client.device().node().path();
                log::info!("{name}: a client task drives it over vhost ({device})");
                task::spawn(&name, async move { client.ended().await });
            }
            Err(ClientError::Vhost(VhostError::NotIsolated)) => log::error!(
                "{name}: no client gets it: without an IOMMU it could reach all memory; {OPT_IN} on the \
                 command line allows that"
            ),
            Err(error) => log::error!("{name}: no client can use it: {error}"),
        }
    }

    async fn start_client(&self, name: &str) -> Result<Client, ClientError> {
        let arena = (heap::figures().total as usize / ARENA_PART).clamp(ARENA_LEAST, ARENA_MOST);
        let options = OpenOptions {
            trust: match self.without_iommu {
                WithoutIommu::Refused => Trust::Isolated,
                // SAFETY: the client is this kernel's, whose rings are those of its queues; the
                // operator has asked for it by name.
                WithoutIommu::Unsafe => unsafe { Trust::unsafe_no_iommu() },
            },
            ..OpenOptions::default()
        };
        let handle = self.registry.open(name, options).await?;
        Client::attach(handle, &self.platform, &self.bus, ClientOptions { arena }).await
    }
}
