//! A machine with functions, and memory behind their registers in which everything can be written.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use pci::{ConfigAccess, PciBus, PciRoot, PortDriver, Windows};
use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;
use vdpa::bus::{Bus, BusDevice, Driver};
use vdpa::device::VdpaBus;
use vdpa::platform::{Mmio, PhysAddr};
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform};
use virtio_pci::ifcvf::{Ifcvf, QEMU_IDS};
use virtio_pci::vp_vdpa::VpVdpa;
use virtq::{Doorbell, Event, NotifyFormat};

use super::function::{Function, SR_IOV};

/// What the processor addresses.
const REACH: u64 = 1 << 40;
/// Where memory above 4 GiB is given away.
pub const MEM64: u64 = 0x80_0000_0000;
/// More accesses than this by one run are a hang.
const ACCESSES_MAX: u64 = 20_000_000;

/// Bus, then device and function.
pub type Place = (u8, u8);

/// How configuration space is reached.
pub struct Slots {
    pub functions: Mutex<BTreeMap<Place, Function>>,
    buses: RangeInclusive<u8>,
    function_size: u16,
    accesses: Mutex<u64>,
}

impl Slots {
    /// Runs `access` with the function there, real or virtual.
    fn at<T>(&self, address: PciAddress, access: impl FnOnce(&mut Function) -> T) -> Option<T> {
        let mut accesses = self.accesses.lock();
        *accesses += 1;
        assert!(
            *accesses < ACCESSES_MAX,
            "configuration space is read for ever"
        );
        drop(accesses);
        let place = (address.bus(), address.device() << 3 | address.function());
        let mut functions = self.functions.lock();
        if let Some(function) = functions.get_mut(&place) {
            return Some(access(function));
        }
        let number = |(bus, rest): Place| u32::from(bus) << 8 | u32::from(rest);
        let is_virtual = functions.iter().any(|(physical, function)| {
            let word = |at| u32::from(function.peek16(SR_IOV + at));
            let (count, first, stride) = (word(0x10), word(0x14), word(0x16).max(1));
            let distance = number(place).checked_sub(number(*physical) + first);
            function.peek16(SR_IOV) == 0x10
                && word(8) & 1 != 0
                && distance.is_some_and(|distance| {
                    distance.is_multiple_of(stride) && distance / stride < count
                })
        });
        is_virtual.then(|| access(&mut Function::virtual_one()))
    }
}

impl ConfigRegionAccess for Slots {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let word = self.at(address, |function| function.read(offset));
        word.unwrap_or(u32::MAX)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        self.at(address, |function| {
            function.write(offset, &value.to_le_bytes());
        });
    }
}

impl ConfigAccess for Slots {
    fn segment(&self) -> u16 {
        0
    }

    fn buses(&self) -> RangeInclusive<u8> {
        self.buses.clone()
    }

    fn function_size(&self) -> u16 {
        self.function_size
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        self.at(address, |function| {
            function.write(offset, &value.to_le_bytes());
        });
    }
}

/// Whatever answers behind the registers of functions, at its address.
pub trait Registers: Send {
    fn read(&mut self, address: u64, width: usize) -> u32;
    fn write(&mut self, address: u64, width: usize, value: u32);
}

/// All of memory.
struct Space<R>(Mutex<R>);

impl<R> fmt::Debug for Space<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Space")
    }
}

// SAFETY: nothing is reached but a model.
unsafe impl<R: Registers> Mmio for Space<R> {
    fn len(&self) -> u64 {
        REACH
    }

    fn read8(&self, offset: u64) -> u8 {
        self.0.lock().read(offset, 1).to_le_bytes()[0]
    }

    fn read16(&self, offset: u64) -> u16 {
        let [low, high, ..] = self.0.lock().read(offset, 2).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn read32(&self, offset: u64) -> u32 {
        self.0.lock().read(offset, 4)
    }

    unsafe fn write8(&self, offset: u64, value: u8) {
        self.0.lock().write(offset, 1, value.into());
    }

    unsafe fn write16(&self, offset: u64, value: u16) {
        self.0.lock().write(offset, 2, value.into());
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        self.0.lock().write(offset, 4, value);
    }

    unsafe fn doorbell(&self, _: u64, _: u16, _: NotifyFormat) -> Option<Doorbell> {
        Some(Doorbell::event(Arc::<Event>::default()))
    }
}

/// The machine with its buses.
pub struct Machine {
    pub slots: Arc<Slots>,
    pub platform: Arc<FakePlatform>,
    pub pci: Arc<PciBus>,
    pub vdpa: Arc<VdpaBus>,
    pub root: Arc<Node>,
}

impl Machine {
    /// With the drivers of ports and of virtio functions, but for those of `ifcvf` nothing is
    /// QEMU's.
    pub fn new(
        buses: RangeInclusive<u8>,
        function_size: u16,
        registers: impl Registers + 'static,
        functions: BTreeMap<Place, Function>,
    ) -> Self {
        let platform = FakePlatform::new();
        platform.add_mmio(PhysAddr(0), Arc::new(Space(Mutex::new(registers))));
        let slots = Slots {
            functions: Mutex::new(functions),
            buses,
            function_size,
            accesses: Mutex::new(0),
        };
        let machine = Self {
            slots: Arc::new(slots),
            platform,
            pci: PciBus::new("pci"),
            vdpa: VdpaBus::new("vdpa"),
            root: Node::root("root"),
        };
        let services: Arc<dyn Platform> = Arc::clone(&machine.platform) as _;
        let parent = VpVdpa::new(Arc::clone(&services), Arc::clone(&machine.vdpa));
        machine.add_driver(&machine.pci, Arc::new(parent));
        let parent = Ifcvf::new(services, Arc::clone(&machine.vdpa)).with_ids(QEMU_IDS);
        machine.add_driver(&machine.pci, Arc::new(parent));
        machine.add_driver(&machine.pci, Arc::new(PortDriver::new(&machine.pci)));
        machine
    }

    pub fn add_driver<D: BusDevice>(&self, bus: &Arc<Bus<D>>, driver: Arc<dyn Driver<D>>) {
        let added = self.platform.block_on(bus.add_driver(driver));
        added.expect("a driver's name is free");
    }

    /// Finds the functions.
    pub fn enumerate(&self, other_roots: bool) -> usize {
        let windows = Windows {
            mem32: 0xe000_0000..0xf000_0000,
            mem64: Some(MEM64..REACH),
            io: Some(0xc000..0x1_0000),
            reach: REACH,
        };
        let access: Arc<dyn ConfigAccess> = Arc::clone(&self.slots) as _;
        let mut root = PciRoot::new(access, Arc::clone(&self.platform) as _, windows);
        if other_roots {
            root = root.with_other_roots();
        }
        self.platform
            .block_on(root.enumerate(&self.pci, &self.root))
    }

    /// Takes every function off the bus. Nothing must be left of them.
    pub fn end(self) {
        while let Some(device) = self.pci.devices().pop() {
            self.platform.block_on(self.pci.remove_device(&device));
        }
        assert!(self.vdpa.devices().is_empty(), "a vDPA device is left");
        assert_eq!(self.platform.vectors_in_use(), 0, "a vector is left");
        assert!(self.root.children().is_empty(), "a node is left");
    }
}
