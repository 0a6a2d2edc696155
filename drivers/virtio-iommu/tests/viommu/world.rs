//! An IOMMU that is up, and the units behind it.

use std::sync::Arc;
use std::time::Duration;

use iommu::Iommus;
use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, DomainError, IommuDomain};
use vdpa::testing::{FakeParent, FakePlatform};
use vdpa::{Features, Node, Platform};
use virtio_bus::VirtioBus;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_iommu::{IommuDriver, Topology};
use virtq::DmaAddr;

use crate::model::{Model, Traits};

pub(crate) const INPUT_RANGE: u128 = 1 << 0;
pub(crate) const DOMAIN_RANGE: u128 = 1 << 1;
pub(crate) const MAP_UNMAP: u128 = 1 << 2;
pub(crate) const BYPASS: u128 = 1 << 3;
pub(crate) const PROBE: u128 = 1 << 4;
pub(crate) const MMIO: u128 = 1 << 5;
pub(crate) const BYPASS_CONFIG: u128 = 1 << 6;

/// The message window, as an IOMMU tells of it.
pub(crate) const MESSAGES: (u64, u64) = (0xfee0_0000, 0xfeef_ffff);

/// How the test's IOMMU differs from a plain one.
pub(crate) struct Setup {
    pub(crate) features: u128,
    pub(crate) ring: virtio::F,
    pub(crate) traits: Traits,
    pub(crate) queue_sizes: [u16; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            features: INPUT_RANGE | DOMAIN_RANGE | MAP_UNMAP | PROBE | BYPASS_CONFIG,
            ring: virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX,
            traits: Traits {
                page_mask: !0xfff,
                input: (0, u64::MAX),
                domains: (0, u32::MAX),
                probe_size: 64,
                endpoints: [0x10, 0x18, 0x20, 0x28].into(),
                properties: reserved(1, MESSAGES.0, MESSAGES.1),
                takes_mmio: false,
                backward: false,
            },
            queue_sizes: [64, 64],
        }
    }
}

/// A property that reserves a range.
pub(crate) fn reserved(subtype: u8, first: u64, last: u64) -> Vec<u8> {
    let head = [1, 0, 20, 0, subtype, 0, 0, 0];
    [&head[..], &first.to_le_bytes(), &last.to_le_bytes()].concat()
}

/// The IOMMU works whenever the driver looks at the clock.
fn let_work(platform: &FakePlatform, model: &Arc<Model>) {
    const TICK: Duration = Duration::from_micros(100);
    let model = Arc::downgrade(model);
    platform.at_each_look(move |platform| {
        if let Some(model) = model.upgrade() {
            model.work();
        }
        platform.advance(TICK);
    });
}

/// The IOMMU stands before requesters below 0x100, and calls them by their ids.
#[derive(Debug)]
struct FirstRequesters;

impl Topology for FirstRequesters {
    fn endpoint(&self, iommu: &Arc<Node>, requester: u32) -> Option<u32> {
        assert!(iommu.path().ends_with("virtio0"), "{}", iommu.path());
        (requester < 0x100).then_some(requester)
    }
}

pub(crate) struct World {
    pub(crate) platform: Arc<FakePlatform>,
    pub(crate) parent: Arc<FakeParent>,
    pub(crate) model: Arc<Model>,
    pub(crate) iommus: Arc<Iommus>,
    pub(crate) root: Arc<Node>,
    virtio: Arc<VirtioBus>,
    vdpa: Arc<VdpaBus>,
    device: Arc<VdpaDevice>,
}

impl Setup {
    pub(crate) fn start(self) -> World {
        self.start_with(|_| {})
    }

    pub(crate) fn start_with(self, set_up: impl FnOnce(&FakeParent)) -> World {
        let platform = FakePlatform::new();
        let features = Features::from_bits(self.features) | Features::from(self.ring);
        let config = self.traits.config();
        let parent = FakeParent::new(&platform, 23, features, &self.queue_sizes, &config);
        let model = Model::new(&parent, self.traits);
        let_work(&platform, &model);
        set_up(&parent);
        let root = Node::root("root");
        let (virtio, vdpa) = (VirtioBus::new("virtio"), VdpaBus::new("vdpa"));
        let iommus = Iommus::new();
        let driver = IommuDriver::new(Arc::clone(&iommus), Arc::new(FirstRequesters));
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&root),
            dma: IsolationUnit::new(&root, None, None),
            platform: Arc::clone(&platform) as Arc<dyn Platform>,
            kind: DeviceKind::Software,
            name: None,
        };
        let device = platform.block_on(async {
            virtio.add_driver(Arc::new(driver)).await.unwrap();
            let bus_driver = VirtioVdpa::new(Arc::clone(&virtio));
            vdpa.add_driver(Arc::new(bus_driver)).await.unwrap();
            vdpa.register(parent.ops(), config).await.unwrap()
        });
        World {
            platform,
            parent,
            model,
            iommus,
            root,
            virtio,
            vdpa,
            device,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Setup::default().start()
    }

    /// A unit with these requester ids.
    pub(crate) fn unit(&self, ids: &[u32]) -> Arc<IsolationUnit> {
        IsolationUnit::of_requesters(&self.root, ids.to_vec(), Vec::new())
    }

    /// A domain that the unit is in.
    pub(crate) fn entered(&self, unit: &Arc<IsolationUnit>) -> Arc<dyn IommuDomain> {
        let domain = self.iommus.isolate(unit).unwrap();
        domain.enter().unwrap();
        domain
    }

    /// The driver of the IOMMU.
    pub(crate) fn driver(&self) -> Option<String> {
        let devices = self.virtio.devices();
        self.virtio.driver_of(devices.first()?)
    }

    pub(crate) fn config(&self, offset: u32) -> u8 {
        let mut byte = [0xff];
        self.virtio.devices()[0]
            .read_config(offset, &mut byte)
            .unwrap();
        byte[0]
    }

    pub(crate) fn remove_driver(&self) {
        self.platform
            .block_on(self.virtio.remove_driver("virtio_iommu"));
    }

    /// Gives the device to its driver again.
    pub(crate) fn bind_again(&self) {
        let driver = IommuDriver::new(Arc::clone(&self.iommus), Arc::new(FirstRequesters));
        let added = self
            .platform
            .block_on(self.virtio.add_driver(Arc::new(driver)));
        added.unwrap();
    }

    pub(crate) fn remove(&self, removal: Removal) {
        self.platform
            .block_on(self.vdpa.unregister(&self.device, removal));
    }

    /// What the IOMMU tells of itself.
    pub(crate) fn fact(&self, name: &str) -> String {
        let report = self.iommus.list()[0].report();
        let fact = report.facts.into_iter().find(|(fact, _)| *fact == name);
        fact.unwrap().1
    }

    pub(crate) fn memory(&self) -> usize {
        self.platform.heap().outstanding()
    }
}

pub(crate) fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::from_bounds(first, last).unwrap()
}

pub(crate) fn map(first: u64, last: u64, addr: u64) -> DomainChange {
    DomainChange::Map {
        range: range(first, last),
        permission: Permission::all(),
        addr: DmaAddr(addr),
    }
}

pub(crate) fn unmap(first: u64, last: u64) -> DomainChange {
    DomainChange::Unmap(range(first, last))
}

/// What a change must not have done.
pub(crate) const TIMEOUT: Result<(), DomainError> = Err(DomainError::Timeout);
