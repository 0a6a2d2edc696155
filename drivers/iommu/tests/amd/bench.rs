//! A machine with an AMD IOMMU.

use std::sync::Arc;

use iommu::Iommu;
use iommu::amd::{AmdVi, AmdViError, ConfigSpace};
use iommu::tables::{
    DeviceEntry, DteSettings, Ivhd, IvhdFlags, Ivmd, Ivrs, SpecialDevice, SpecialKind,
};
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, IommuDomain, PhysAddr};
use vdpa::testing::{FakePlatform, HeapDma};
use vdpa::{Node, Platform};
use virtq::DmaAddr;

use crate::fake::{FakeAmdVi, GA_SUP, IA_SUP, Model};

pub const BASE: u64 = 0xfed8_0000;
pub const IO_APIC: u8 = 2;
pub const IO_APIC_DEVICE: u16 = 0xa0;
/// The requests of this device come with the id of another.
pub const ALIASED: u16 = 0x310;
pub const ALIAS: u16 = 0x300;

pub const READ: Permission = Permission::READ;
pub const WRITE: Permission = Permission::WRITE;
pub const BOTH: Permission = Permission::READ.union(Permission::WRITE);

/// What QEMU has.
pub const QEMU: Model = Model {
    features: IA_SUP | GA_SUP,
    np_cache: true,
};

pub struct Bench {
    pub platform: Arc<FakePlatform>,
    pub fake: Arc<FakeAmdVi>,
    pub table: Ivrs,
    pub config: bool,
}

impl Bench {
    pub fn new(model: Model) -> Self {
        Self::with_heap(model, HeapDma::new())
    }

    pub fn with_heap(model: Model, heap: Arc<HeapDma>) -> Self {
        let platform = FakePlatform::with_heap(heap);
        let fake = FakeAmdVi::new(&platform, model);
        platform.add_mmio(PhysAddr(BASE), Arc::clone(&fake) as _);
        Self {
            platform,
            fake,
            table: table(),
            config: true,
        }
    }

    pub fn start(&self) -> Result<Arc<AmdVi>, AmdViError> {
        let platform = Arc::clone(&self.platform) as Arc<dyn Platform>;
        let config = self.config.then_some(&*self.fake as &dyn ConfigSpace);
        // SAFETY: the registers are those of the fake.
        unsafe { AmdVi::start(&platform, &self.table, 0, config) }
    }

    pub fn on(model: Model) -> (Self, Arc<AmdVi>) {
        let bench = Self::new(model);
        let iommu = bench.start().unwrap();
        (bench, iommu)
    }

    /// Whether the device reaches the address, and where that is.
    pub fn access(&self, device: u16, addr: u64, access: Permission) -> Option<u64> {
        self.fake.access(device, addr, access).ok()
    }

    /// Runs the task that reads the log.
    pub fn read_events(&self) {
        let pause = std::time::Duration::from_secs(2);
        self.platform.block_on(self.platform.sleep(pause));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.fake.violations(), Vec::<String>::new());
        }
    }
}

pub fn table() -> Ivrs {
    let settings = DteSettings::empty();
    let entry = |devices, alias| DeviceEntry {
        devices,
        alias,
        settings,
        ats_disabled: false,
    };
    let unit = Ivhd {
        flags: IvhdFlags::COHERENT,
        device_id: 0x2,
        capability: 0x40,
        base: BASE,
        segment: 0,
        info: 0,
        attributes: 0,
        features: None,
        devices: vec![
            entry(0..=0x2ff, None),
            entry(ALIAS..=ALIAS, None),
            entry(ALIASED..=ALIASED, Some(ALIAS)),
        ],
        special: vec![SpecialDevice {
            kind: SpecialKind::IoApic,
            handle: IO_APIC,
            device: IO_APIC_DEVICE,
            settings,
        }],
        acpi: Vec::new(),
    };
    Ivrs {
        info: 48 << 15 | 40 << 8,
        units: vec![unit],
        memory: Vec::<Ivmd>::new(),
    }
}

pub fn device(id: u16) -> Arc<IsolationUnit> {
    IsolationUnit::new(&Node::root("pci"), Some(id.into()), None)
}

pub fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::new(first, len).unwrap()
}

pub fn map(first: u64, len: u64, permission: Permission, addr: u64) -> DomainChange {
    DomainChange::Map {
        range: range(first, len),
        permission,
        addr: DmaAddr(addr),
    }
}

pub fn unmap(first: u64, len: u64) -> DomainChange {
    DomainChange::Unmap(range(first, len))
}

/// A domain that the device is in.
pub fn entered(iommu: &AmdVi, unit: &Arc<IsolationUnit>) -> Arc<dyn IommuDomain> {
    let domain = iommu.domain(unit).unwrap();
    domain.enter().unwrap();
    domain
}

/// What the IOMMU says of itself under a name.
pub fn fact(iommu: &AmdVi, name: &str) -> String {
    let facts = iommu.report().facts;
    let fact = facts.into_iter().find(|(other, _)| *other == name);
    fact.map(|(_, value)| value).unwrap_or_default()
}
