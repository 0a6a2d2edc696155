//! A machine with one PCI segment.

use std::sync::Arc;

use pci::{PciBus, PciDevice, PciRoot, Windows};
use vdpa::bus::BusDevice;
use vdpa::platform::PhysAddr;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform};

use super::slot::Slot;
use super::tree::{FakeMemory, FakeTree};

pub const MEM32: std::ops::Range<u64> = 0xe000_0000..0xf000_0000;
pub const MEM64: std::ops::Range<u64> = 0x80_0000_0000..0x90_0000_0000;
pub const IO: std::ops::Range<u64> = 0xc000..0x1_0000;

/// The end of what the processor addresses: 40 bits.
pub const REACH: u64 = 1 << 40;

pub struct Machine {
    pub tree: Arc<FakeTree>,
    pub platform: Arc<FakePlatform>,
    pub pci: Arc<PciBus>,
    pub root: Arc<Node>,
    pub windows: Windows,
}

impl Machine {
    pub fn new() -> Self {
        Self::with_tree(FakeTree::new())
    }

    pub fn with_tree(tree: Arc<FakeTree>) -> Self {
        Self::on(FakePlatform::new(), tree)
    }

    pub fn on(platform: Arc<FakePlatform>, tree: Arc<FakeTree>) -> Self {
        platform.add_mmio(PhysAddr(0), Arc::new(FakeMemory(Arc::clone(&tree))));
        let windows = Windows {
            mem32: MEM32,
            mem64: Some(MEM64),
            io: Some(IO),
            reach: REACH,
        };
        Self {
            tree,
            platform,
            pci: PciBus::new("pci"),
            root: Node::root("root"),
            windows,
        }
    }

    /// A machine with these functions on the root bus, as devices 1, 2, 3..
    pub fn with_functions(functions: &[&Arc<impl Slot + 'static>]) -> Self {
        let machine = Self::new();
        for (device, function) in (1..).zip(functions) {
            machine.tree.root.put(device, 0, function);
        }
        machine
    }

    pub fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as _
    }

    /// Enumerates and returns how many functions there are.
    pub fn enumerate(&self) -> usize {
        let access = Arc::clone(&self.tree) as _;
        let root = PciRoot::new(access, self.platform(), self.windows.clone());
        self.platform
            .block_on(root.enumerate(&self.pci, &self.root))
    }

    /// As [`enumerate`](Self::enumerate), on every root bus.
    pub fn enumerate_all(&self) -> usize {
        let access = Arc::clone(&self.tree) as _;
        let root = PciRoot::new(access, self.platform(), self.windows.clone());
        let root = root.with_other_roots();
        self.platform
            .block_on(root.enumerate(&self.pci, &self.root))
    }

    /// The names of the functions on the bus.
    pub fn names(&self) -> Vec<String> {
        self.pci
            .devices()
            .iter()
            .map(|device| device.node().name().to_owned())
            .collect()
    }

    /// The function of this name.
    pub fn device(&self, name: &str) -> Arc<PciDevice> {
        let devices = self.pci.devices();
        let mut named = devices.iter().filter(|device| device.node().name() == name);
        Arc::clone(named.next().expect("a function of this name"))
    }

    /// What a node says of itself under `fact`.
    pub fn fact(&self, name: &str, fact: &str) -> Option<String> {
        let report = self
            .device(name)
            .node()
            .report()
            .expect("PCI functions report");
        report
            .facts
            .into_iter()
            .find(|(name, _)| *name == fact)
            .map(|(_, value)| value)
    }
}
