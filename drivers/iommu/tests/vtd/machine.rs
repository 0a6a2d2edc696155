//! A machine with remapping units, whose time passes whenever somebody looks at the clock.

use std::sync::Arc;
use std::time::Duration;

use iommu::Iommu;
use iommu::tables::{DeviceScope, Dmar, DmarFlags, Drhd, DrhdFlags, Rmrr, ScopeKind};
use iommu::vtd::{ApicMode, Vtd, VtdError};
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, IommuDomain, PhysAddr};
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform};
use virtq::DmaAddr;
use virtq::testing::HeapDma;

use crate::fake::{Config, Fake};

pub const BASE: u64 = 0xfed9_0000;

/// The device of most tests: 01:00.0.
pub const DEVICE: u16 = 0x100;

/// What passes with each look at the clock.
const TICK: Duration = Duration::from_millis(20);

pub struct Machine {
    pub platform: Arc<FakePlatform>,
    pub fakes: Vec<Arc<Fake>>,
    pub dmar: Dmar,
    node: Arc<Node>,
}

impl Machine {
    /// One unit for everything.
    pub fn new(config: Config) -> Self {
        Self::with_heap(config, HeapDma::new())
    }

    pub fn with_heap(config: Config, heap: Arc<HeapDma>) -> Self {
        let platform = FakePlatform::with_heap(heap);
        platform.at_each_look(|platform| platform.advance(TICK));
        let mut machine = Self {
            platform,
            fakes: Vec::new(),
            dmar: Dmar {
                address_bits: 46,
                flags: DmarFlags::INTR_REMAP,
                units: Vec::new(),
                reserved: Vec::new(),
                ats_ports: Vec::new(),
                integrated: Vec::new(),
                affinities: Vec::new(),
                names: Vec::new(),
            },
            node: Node::root("machine"),
        };
        let io_apic = DeviceScope {
            kind: ScopeKind::IoApic,
            enumeration_id: 8,
            start_bus: 0xf0,
            path: vec![0x1f << 3],
        };
        machine.add_unit(config, DrhdFlags::INCLUDE_PCI_ALL, vec![io_apic]);
        machine
    }

    /// One more, before those that are there.
    pub fn add_unit(&mut self, config: Config, flags: DrhdFlags, scopes: Vec<DeviceScope>) {
        let fake = Fake::new(config, &self.platform);
        let base = BASE + 0x1000 * self.fakes.len() as u64;
        let registers = Arc::<Fake>::clone(&fake);
        self.platform.add_mmio(PhysAddr(base), registers);
        self.fakes.insert(0, fake);
        let unit = Drhd {
            flags,
            segment: 0,
            base,
            size: 0x1000,
            scopes,
        };
        self.dmar.units.insert(0, unit);
    }

    /// Firmware uses memory for a device.
    pub fn reserve(&mut self, base: u64, limit: u64, scope: DeviceScope) {
        self.dmar.reserved.push(Rmrr {
            segment: 0,
            base,
            limit,
            scopes: vec![scope],
        });
    }

    pub fn fake(&self) -> &Fake {
        &self.fakes[0]
    }

    pub fn try_start(&self, index: usize, apics: ApicMode) -> Result<Arc<Vtd>, VtdError> {
        let platform = Arc::clone(&self.platform) as Arc<dyn Platform>;
        // SAFETY: the registers are those of a fake.
        unsafe { Vtd::start(&platform, &self.dmar, index, apics) }
    }

    pub fn start(&self) -> Arc<Vtd> {
        let vtd = self.try_start(0, ApicMode::X2Apic).unwrap();
        self.platform.run_until_stalled();
        vtd
    }

    pub fn unit(&self, requester: u16) -> Arc<IsolationUnit> {
        IsolationUnit::new(&self.node, Some(requester.into()), None)
    }

    pub fn unit_below(&self, ids: &[u32], bridges: &[u32]) -> Arc<IsolationUnit> {
        IsolationUnit::of_requesters(&self.node, ids.to_vec(), bridges.to_vec())
    }

    /// A unit in a domain.
    pub fn enter(&self, vtd: &Vtd, requester: u16) -> (Arc<IsolationUnit>, Arc<dyn IommuDomain>) {
        let unit = self.unit(requester);
        let domain = vtd.domain(&unit).unwrap();
        domain.enter().unwrap();
        (unit, domain)
    }

    /// Lets the watcher of faults work.
    pub fn settle(&self) {
        self.platform.run_until_stalled();
        self.platform.advance(Duration::from_secs(2));
        self.platform.run_until_stalled();
    }
}

pub fn endpoint(bus: u8, path: &[u8]) -> DeviceScope {
    DeviceScope {
        kind: ScopeKind::Endpoint,
        enumeration_id: 0,
        start_bus: bus,
        path: path.to_vec(),
    }
}

pub fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::new(first, len).unwrap()
}

pub fn map(first: u64, len: u64, addr: u64) -> DomainChange {
    map_for(first, len, addr, Permission::all())
}

pub fn map_for(first: u64, len: u64, addr: u64, permission: Permission) -> DomainChange {
    DomainChange::Map {
        range: range(first, len),
        permission,
        addr: DmaAddr(addr),
    }
}

pub fn unmap(first: u64, len: u64) -> DomainChange {
    DomainChange::Unmap(range(first, len))
}

/// What a report says.
pub fn fact(vtd: &Vtd, name: &str) -> String {
    let facts = vtd.report().facts;
    let fact = facts.into_iter().find(|(other, _)| *other == name);
    fact.map(|(_, value)| value).unwrap_or_default()
}
