//! An IOMMU, the units that enter its domains, and what becomes of both.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use iommu::Iommus;
use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, IommuDomain};
use vdpa::testing::{FakeParent, FakePlatform};
use vdpa::{Features, Node, Platform};
use virtio_bus::VirtioBus;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_iommu::{IommuDriver, Topology};
use virtq::DmaAddr;

use super::device::Device;
use super::input::Input;

const STEPS_MAX: usize = 64;
const UNITS: usize = 4;
const IOMMU: u32 = 23;

/// It stands before every requester and calls it by its own id.
#[derive(Debug)]
struct Everybody;

impl Topology for Everybody {
    fn endpoint(&self, _iommu: &Arc<Node>, requester: u32) -> Option<u32> {
        Some(requester)
    }
}

/// An IOMMU, and what happens to it.
///
/// # Panics
/// If the driver does what it must not do.
pub fn viommu(data: &[u8]) {
    let input = Arc::new(Mutex::new(Input::new(data)));
    let platform = FakePlatform::new();
    let parent = parent(&platform, &mut input.lock().expect("nobody panics"));
    let device = Arc::new(Device {
        parent: Arc::clone(&parent),
        input: Arc::clone(&input),
    });
    let_work(&platform, &device);
    let root = Node::root("root");
    let (virtio, vdpa) = (VirtioBus::new("virtio"), VdpaBus::new("vdpa"));
    let iommus = Iommus::new();
    let driver = IommuDriver::new(Arc::clone(&iommus), Arc::new(Everybody));
    let config = VdpaDeviceConfig {
        parent: Arc::clone(&root),
        dma: IsolationUnit::new(&root, None, None),
        platform: Arc::clone(&platform) as Arc<dyn Platform>,
        kind: DeviceKind::Software,
        name: None,
    };
    let registered = platform.block_on(async {
        let added = virtio.add_driver(Arc::new(driver)).await;
        added.expect("the only driver");
        let bus_driver = VirtioVdpa::new(Arc::clone(&virtio));
        let added = vdpa.add_driver(Arc::new(bus_driver)).await;
        added.expect("the only driver");
        vdpa.register(parent.ops(), config).await
    });
    let registered = registered.expect("the device can be registered");
    let mut units = Units::new(&root);
    for _ in 0..STEPS_MAX {
        if input.lock().expect("nobody panics").is_empty() {
            break;
        }
        units.step(&iommus, &device);
        platform.run_until_stalled();
        if let Some(iommu) = iommus.list().first() {
            assert_eq!(iommu.report().facts.len(), 7);
        }
    }
    platform.block_on(vdpa.unregister(&registered, Removal::Orderly));
    assert!(iommus.list().is_empty(), "it is gone");
    drop(units);
    platform.run_until_stalled();
    assert_eq!(platform.heap().outstanding(), 0, "all memory is back");
    let tasks = platform.tasks();
    assert!(!tasks.iter().any(|task| task == "viommu0"), "{tasks:?}");
}

/// The IOMMU works whenever somebody looks at the clock.
fn let_work(platform: &FakePlatform, device: &Arc<Device>) {
    const TICK: Duration = Duration::from_millis(10);
    let device = Arc::downgrade(device);
    platform.at_each_look(move |platform| {
        if let Some(device) = device.upgrade() {
            device.work();
        }
        platform.advance(TICK);
    });
}

/// A device with any configuration, which mostly makes sense.
fn parent(platform: &Arc<FakePlatform>, input: &mut Input) -> Arc<FakeParent> {
    let settings = input.byte();
    let mut features = Features::from_bits(u128::from(input.byte()) | 1 << 2);
    if settings & 1 != 0 {
        features = features | Features::from(virtio::F::RING_PACKED);
    }
    if settings & 2 != 0 {
        features = features | Features::from(virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX);
    }
    if settings & 4 != 0 {
        features = features | Features::from(virtio::F::IN_ORDER);
    }
    let mut config = Vec::new();
    if settings & 8 != 0 {
        for _ in 0..5 {
            config.extend(input.u64().to_le_bytes());
        }
    } else {
        for long in [1_u64 << (12 + input.byte() % 8), 0, u64::MAX] {
            config.extend(long.to_le_bytes());
        }
        for word in [0, 3, u32::from(input.byte()), 1] {
            config.extend(word.to_le_bytes());
        }
    }
    if settings & 16 != 0 {
        config.truncate(36);
    }
    let sizes = [1 << (1 + input.byte() % 6), 1 << (1 + input.byte() % 6)];
    FakeParent::new(platform, IOMMU, features, &sizes, &config)
}

/// Units, some of which are in domains.
struct Units {
    units: Vec<Arc<IsolationUnit>>,
    domains: Vec<Option<Arc<dyn IommuDomain>>>,
}

impl Units {
    fn new(root: &Arc<Node>) -> Self {
        let ids = |unit: u32| Vec::from([unit * 16, unit * 16 + 8]);
        let unit = |unit: u32| IsolationUnit::of_requesters(root, ids(unit), Vec::new());
        Self {
            units: (0..UNITS as u32).map(unit).collect(),
            domains: vec![None; UNITS],
        }
    }

    fn step(&mut self, iommus: &Iommus, device: &Device) {
        let (what, unit, changes) = {
            let mut input = device.input.lock().expect("nobody panics");
            let (what, unit) = (input.byte(), usize::from(input.byte()) % UNITS);
            let count = if what % 8 < 4 { input.byte() % 6 } else { 0 };
            let changes: Vec<_> = (0..count).filter_map(|_| change(&mut input)).collect();
            (what, unit, changes)
        };
        match (what % 8, &self.domains[unit]) {
            (0..4, Some(domain)) => {
                let _ = domain.change(&changes);
            }
            (0..5, None) => {
                let domain = iommus.isolate(&self.units[unit]);
                if let Some(domain) = &domain {
                    assert!(domain.iova_ranges().len() == 1);
                    let _ = domain.change(&changes);
                    let _ = domain.enter();
                }
                self.domains[unit] = domain;
            }
            (5, _) => self.domains[unit] = None,
            (6, _) => device.tell(),
            _ if what < 16 => device.parent.demand_reset(),
            _ => device.work(),
        }
    }
}

/// A change that may be possible.
fn change(input: &mut Input) -> Option<DomainChange> {
    let kind = input.byte();
    let (first, len) = match kind {
        0xf0.. => (input.u64(), input.u64()),
        _ => {
            let page = 1 << (12 + kind % 8);
            (
                u64::from(input.byte() % 32) * page,
                u64::from(input.byte() % 8) * page,
            )
        }
    };
    let range = IovaRange::new(first, len).ok()?;
    Some(match kind & 0x80 {
        0 => DomainChange::Unmap(range),
        _ => DomainChange::Map {
            range,
            permission: Permission::from_bits_truncate(kind >> 4),
            addr: DmaAddr(first),
        },
    })
}
