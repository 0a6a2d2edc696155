//! A PCI segment: buses, bridges that route by their registers, and the memory behind BARs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pci::ConfigAccess;
use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;
use vdpa::platform::Mmio;
use virtq::{Doorbell, NotifyFormat};

use super::slot::Slot;

/// The functions on one bus, by device and function number.
#[derive(Default)]
pub struct FakeBus(Mutex<BTreeMap<(u8, u8), Arc<dyn Slot>>>);

impl FakeBus {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn put(&self, device: u8, number: u8, function: &Arc<impl Slot + 'static>) {
        let function = Arc::clone(function) as Arc<dyn Slot>;
        self.0.lock().insert((device, number), function);
    }

    pub fn remove(&self, device: u8, number: u8) {
        self.0.lock().remove(&(device, number));
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }

    fn functions(&self) -> Vec<Arc<dyn Slot>> {
        self.0.lock().values().cloned().collect()
    }

    fn route(&self, here: u8, address: PciAddress) -> Option<Arc<dyn Slot>> {
        if here == address.bus() {
            return self
                .0
                .lock()
                .get(&(address.device(), address.function()))
                .cloned();
        }
        let functions = self.functions();
        let mut ways = functions.iter().filter_map(|function| {
            let behind = function.behind()?;
            let [_, secondary, subordinate, _] = function.read(0x18).to_le_bytes();
            let leads_there = secondary != 0 && (secondary..=subordinate).contains(&address.bus());
            leads_there.then_some((behind, secondary))
        });
        let (behind, secondary) = ways.next()?;
        assert!(
            ways.next().is_none(),
            "two bridges claim bus {}",
            address.bus()
        );
        behind.route(secondary, address)
    }

    /// Who answers to a memory address.
    fn resolve(&self, address: u64) -> Option<(Arc<dyn Slot>, usize, u64)> {
        let mut found = None;
        for function in self
            .functions()
            .into_iter()
            .filter(|function| function.decodes())
        {
            let bar = function
                .memory()
                .into_iter()
                .find(|(_, range)| range.contains(&address));
            let hit = match (bar, function.behind(), function.bridge_window()) {
                (Some((index, range)), ..) => {
                    Some((Arc::clone(&function), index, address - range.start))
                }
                (_, Some(behind), Some(window)) if window.contains(&address) => {
                    behind.resolve(address)
                }
                _ => None,
            };
            if hit.is_some() {
                assert!(found.is_none(), "two functions answer at {address:#x}");
                found = hit;
            }
        }
        found
    }
}

/// A segment whose root bus is bus 0, and perhaps others.
pub struct FakeTree {
    pub root: Arc<FakeBus>,
    /// Root buses beside it, by their numbers.
    pub others: Mutex<BTreeMap<u8, Arc<FakeBus>>>,
    /// Nobody looks at bus numbers: every bus is the first.
    pub is_deaf_to_buses: AtomicBool,
    /// 256 as through ports, or 4096 as through ECAM.
    pub function_size: u16,
}

impl Default for FakeTree {
    fn default() -> Self {
        Self {
            root: FakeBus::new(),
            others: Mutex::default(),
            is_deaf_to_buses: AtomicBool::new(false),
            function_size: 4096,
        }
    }
}

impl FakeTree {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Another root bus.
    pub fn add_root(&self, number: u8) -> Arc<FakeBus> {
        let bus = FakeBus::new();
        self.others.lock().insert(number, Arc::clone(&bus));
        bus
    }

    fn roots(&self) -> Vec<(u8, Arc<FakeBus>)> {
        let others = self.others.lock();
        let others = others
            .iter()
            .map(|(number, bus)| (*number, Arc::clone(bus)));
        [(0, Arc::clone(&self.root))]
            .into_iter()
            .chain(others)
            .collect()
    }

    fn route(&self, address: PciAddress) -> Option<Arc<dyn Slot>> {
        if self.is_deaf_to_buses.load(Ordering::Relaxed) {
            let (device, number) = (address.device(), address.function());
            return self.root.route(0, PciAddress::new(0, 0, device, number));
        }
        let roots = self.roots().into_iter();
        let mut ways = roots.filter_map(|(number, bus)| bus.route(number, address));
        let way = ways.next()?;
        assert!(ways.next().is_none(), "two root buses lead to {address}");
        Some(way)
    }

    fn resolve(&self, address: u64) -> Option<(Arc<dyn Slot>, usize, u64)> {
        let roots = self.roots().into_iter();
        let mut found = roots.filter_map(|(_, bus)| bus.resolve(address));
        let first = found.next()?;
        assert!(
            found.next().is_none(),
            "two functions answer at {address:#x}"
        );
        Some(first)
    }
}

impl ConfigAccess for FakeTree {
    fn segment(&self) -> u16 {
        0
    }

    fn buses(&self) -> RangeInclusive<u8> {
        0..=255
    }

    fn function_size(&self) -> u16 {
        self.function_size
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        assert!(offset.is_multiple_of(2) && offset < self.function_size);
        if let Some(function) = self.route(address) {
            function.write16(offset, value);
        }
    }
}

impl ConfigRegionAccess for FakeTree {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        assert!(offset.is_multiple_of(4) && offset < self.function_size);
        self.route(address)
            .map_or(u32::MAX, |function| function.read(offset))
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4) && offset < self.function_size);
        if let Some(function) = self.route(address) {
            function.write(offset, value);
        }
    }
}

/// All the memory addresses of the segment.
pub struct FakeMemory(pub Arc<FakeTree>);

impl FakeMemory {
    fn read(&self, address: u64, width: u8) -> u32 {
        let target = self.0.resolve(address);
        target.map_or(u32::MAX, |(function, bar, offset)| {
            function
                .model()
                .map_or(0, |model| model.read(bar, offset, width))
        })
    }

    fn write(&self, address: u64, width: u8, value: u32) {
        if let Some((function, bar, offset)) = self.0.resolve(address)
            && let Some(model) = function.model()
        {
            model.write(bar, offset, width, value);
        }
    }
}

// SAFETY: accesses go to fakes.
unsafe impl Mmio for FakeMemory {
    fn len(&self) -> u64 {
        1 << 48
    }

    fn read8(&self, offset: u64) -> u8 {
        self.read(offset, 1).to_le_bytes()[0]
    }

    fn read16(&self, offset: u64) -> u16 {
        let [low, high, ..] = self.read(offset, 2).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, 4)
    }

    unsafe fn write8(&self, offset: u64, value: u8) {
        self.write(offset, 1, u32::from(value));
    }

    unsafe fn write16(&self, offset: u64, value: u16) {
        self.write(offset, 2, u32::from(value));
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        self.write(offset, 4, value);
    }

    unsafe fn doorbell(&self, offset: u64, index: u16, _: NotifyFormat) -> Option<Doorbell> {
        let (function, bar, offset) = self.0.resolve(offset)?;
        function.model()?.doorbell(bar, offset, index)
    }
}

impl std::fmt::Debug for FakeMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeMemory")
    }
}
