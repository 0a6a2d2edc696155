//! A device of each kind, and everything that can be seen of it.

use std::sync::Arc;

use vdpa::device::{
    AttachError, Attachment, DeviceKind, Removal, VdpaBus, VdpaClaim, VdpaDeviceConfig,
};
use vdpa::dma::{IsolationUnit, Owner, Trust};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::keeper::hold;
use vdpa::ops::{Abilities, Backing, OpError};
use vdpa::platform::DomainError;
use vdpa::testing::{FakeIommu, FakeParent, FakePlatform, Traits, Translation};
use vdpa::{Features, Node, Platform};
use virtio::DeviceStatus;
use virtq::{DeviceMemory, SharedMemory};

pub const PAGE: u64 = 0x1000;
pub const RW: Permission = Permission::all();

/// Where an address that is translated starts.
const IOVA: u64 = 0x40_0000_0000;

/// Who translates the device's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Incremental,
    Whole,
    Iommu,
    Nobody,
}

impl Model {
    pub const ALL: [Self; 4] = [Self::Incremental, Self::Whole, Self::Iommu, Self::Nobody];
    pub const TRANSLATED: [Self; 3] = [Self::Incremental, Self::Whole, Self::Iommu];
    pub const ON_CHIP: [Self; 2] = [Self::Incremental, Self::Whole];

    fn translation(self) -> Translation {
        match self {
            Self::Incremental => Translation::Incremental,
            Self::Whole => Translation::Whole,
            Self::Iommu | Self::Nobody => Translation::Platform,
        }
    }
}

pub struct World {
    pub model: Model,
    pub platform: Arc<FakePlatform>,
    pub iommu: Arc<FakeIommu>,
    pub bus: Arc<VdpaBus>,
    pub unit: Arc<IsolationUnit>,
    pub parent: Arc<FakeParent>,
    pub device: VdpaClaim,
}

/// What is mapped: first and last address, permission, and where it leads if that can be seen.
type Mapped = Vec<(u64, u64, Permission)>;

/// Everything that a change may change.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// As the owner sees it.
    tables: Vec<Mapped>,
    bytes: u64,
    /// As the device, or the IOMMU, sees it.
    reachable: Vec<Mapped>,
    owner: Option<Owner>,
    unit_owner: Option<Owner>,
    isolated: bool,
    outstanding: usize,
}

impl World {
    pub fn new(model: Model) -> Self {
        Self::with_traits(model, |_| ())
    }

    /// A device behind an IOMMU that translates these addresses, of which some are reserved.
    pub fn with_iommu(ranges: &[IovaRange], reserved: &[IovaRange]) -> Self {
        let iommu = FakeIommu::with_addresses(ranges, reserved);
        Self::with_parts(Model::Iommu, iommu, |_| ())
    }

    /// A device behind an IOMMU that does not say that it heeds it.
    pub fn without_access_platform() -> Self {
        let mut world = Self::new(Model::Iommu);
        let (platform, bus, unit) = (&world.platform, &world.bus, &world.unit);
        let none = Features::EMPTY;
        (world.parent, world.device) =
            add_device_with(platform, bus, unit, world.model, none, |_| ());
        world
    }

    pub fn with_traits(model: Model, choose: impl FnOnce(&mut Traits)) -> Self {
        Self::with_parts(model, FakeIommu::new(), choose)
    }

    fn with_parts(model: Model, iommu: Arc<FakeIommu>, choose: impl FnOnce(&mut Traits)) -> Self {
        let platform = match model {
            Model::Iommu => FakePlatform::with_iommu(&iommu),
            _ => FakePlatform::new(),
        };
        let root = Node::root("root");
        let unit = IsolationUnit::new(&Node::child(&root, "pci0000:00:04.0"), Some(0x20), None);
        let bus = VdpaBus::new("vdpa");
        let (parent, device) = add_device(&platform, &bus, &unit, model, choose);
        Self {
            model,
            platform,
            iommu,
            bus,
            unit,
            parent,
            device,
        }
    }

    /// Another device of the same isolation unit.
    pub fn sibling(&self) -> VdpaClaim {
        add_device(&self.platform, &self.bus, &self.unit, self.model, |_| ()).1
    }

    pub fn as_platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    /// What a client gets who says what it takes.
    pub fn attach(&self) -> Result<Arc<Attachment>, AttachError> {
        let trust = match self.model {
            Model::Nobody => no_iommu(),
            _ => Trust::Isolated,
        };
        self.device.attach(Owner::Client, trust)
    }

    pub fn memory(&self, pages: u64) -> SharedMemory {
        let len = usize::try_from(pages * PAGE).unwrap();
        SharedMemory::new(&self.platform.dma(), len).unwrap()
    }

    /// Where the pages of `memory` from `page` on can be mapped.
    pub fn range(&self, memory: &SharedMemory, page: u64, pages: u64) -> IovaRange {
        let base = match self.model {
            Model::Nobody => memory.platform_addr().unwrap().0,
            _ => IOVA,
        };
        IovaRange::new(base + page * PAGE, pages * PAGE).unwrap()
    }

    /// Lets what the device, or the IOMMU, is told after `skip` other things fail.
    pub fn fail_after(&self, skip: usize) {
        match self.model {
            Model::Iommu => self.iommu.fail_after(skip, DomainError::Timeout),
            _ => self.parent.fail_after(skip, OpError::Timeout),
        }
    }

    /// Whether the fault has not happened, and takes it away.
    pub fn take_fault(&self) -> bool {
        match self.model {
            Model::Iommu => self.iommu.take_fault(),
            _ => self.parent.take_fault(),
        }
    }

    pub fn reset(&self) {
        self.platform.block_on(self.device.reset()).unwrap();
    }

    /// A driver begins to use the device.
    pub fn start(&self) {
        let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        self.platform
            .block_on(self.device.set_status(status))
            .unwrap();
    }

    pub fn detach(&self, attachment: &Attachment) {
        self.platform.block_on(attachment.detach()).unwrap();
    }

    /// What the device reaches in an address space, if something keeps it away from the rest.
    pub fn reachable(&self, space: u16) -> Mapped {
        let list = match self.model {
            Model::Incremental | Model::Whole => self.parent.mapped(space),
            Model::Iommu if space == 0 => {
                let mapped = self.iommu.mapped(&self.unit).into_iter();
                mapped.map(|(range, how, _)| (range, how)).collect()
            }
            Model::Iommu | Model::Nobody => Vec::new(),
        };
        list.iter()
            .map(|(range, how)| (range.first(), range.last(), *how))
            .collect()
    }

    pub fn snapshot(&self, attachment: &Attachment) -> Snapshot {
        let spaces = 0..attachment.space_count();
        Snapshot {
            tables: spaces
                .clone()
                .map(|space| table(attachment, space))
                .collect(),
            bytes: attachment.mapped_bytes(),
            reachable: spaces.map(|space| self.reachable(space)).collect(),
            owner: self.device.owner(),
            unit_owner: self.unit.owner(),
            isolated: self.iommu.isolates(&self.unit),
            outstanding: self.platform.heap().outstanding(),
        }
    }
}

fn add_device(
    platform: &Arc<FakePlatform>,
    bus: &Arc<VdpaBus>,
    unit: &Arc<IsolationUnit>,
    model: Model,
    choose: impl FnOnce(&mut Traits),
) -> (Arc<FakeParent>, VdpaClaim) {
    let ring = virtio::F::RING_PACKED | virtio::F::ACCESS_PLATFORM;
    let features = Features::from(virtio::net::F::MAC) | ring.into();
    add_device_with(platform, bus, unit, model, features, choose)
}

fn add_device_with(
    platform: &Arc<FakePlatform>,
    bus: &Arc<VdpaBus>,
    unit: &Arc<IsolationUnit>,
    model: Model,
    features: Features,
    choose: impl FnOnce(&mut Traits),
) -> (Arc<FakeParent>, VdpaClaim) {
    let mut traits = Traits {
        translation: model.translation(),
        ..Traits::default()
    };
    traits.abilities |= Abilities::PERSISTENT_MAPS;
    choose(&mut traits);
    let parent = FakeParent::with_traits(platform, 1, features, &[64, 64], &[0; 12], traits);
    let config = VdpaDeviceConfig {
        parent: Arc::clone(unit.node()),
        dma: Arc::clone(unit),
        platform: Arc::clone(platform) as Arc<dyn Platform>,
        kind: DeviceKind::Software,
        name: None,
    };
    let device = platform
        .block_on(bus.register(parent.ops(), config))
        .unwrap();
    let device = platform.block_on(hold(bus, &device)).unwrap();
    parent.take_log();
    (parent, device)
}

/// What the owner has mapped in an address space.
pub fn table(attachment: &Attachment, space: u16) -> Mapped {
    let list = attachment.with_table(space, |table| {
        let mappings = table.iter();
        mappings
            .map(|mapping| {
                let range = mapping.range;
                (range.first(), range.last(), mapping.permission)
            })
            .collect()
    });
    list.unwrap_or_default()
}

/// A client that is trusted with everything.
pub fn no_iommu() -> Trust {
    // SAFETY: the fake devices are given no address of anything.
    unsafe { Trust::unsafe_no_iommu() }
}

/// The memory from `page` on.
pub fn backing(memory: &SharedMemory, page: u64) -> Backing {
    Backing {
        memory: DeviceMemory::open(memory).unwrap(),
        offset: page * PAGE,
    }
}

/// The device disappears.
pub fn surprise() -> Removal {
    // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
    unsafe { Removal::surprise() }
}
