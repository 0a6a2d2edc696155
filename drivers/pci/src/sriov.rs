//! SR-IOV: virtual functions of a card, each a function of its own for whoever it is given to.
//!
//! They come and go together. Each is a device on the bus below its physical function, with the ids and the memory that
//! the capability of that one tells. What a virtual function can do is the business of the driver of the physical one,
//! which may have a say in it ([`Mediator`]).
//!
//! Source: PCI Express Base 6.0, 9 (SR-IOV), 9.3.3 (registers), 6.13 and 7.8.8 (ARI).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use pci_types::{HeaderType, PciAddress};
use vdpa::Node;
use vdpa::bus::{BusDevice, ProbeError};
use vdpa::platform::BoxFuture;

use super::access::ConfigSpace;
use super::bar::{BAR_COUNT, Bars, register, size_registers, write_register};
use super::bridge::BusNumbers;
use super::capability::{self, PCI_EXPRESS};
use super::device::{PciBus, PciDevice};
use super::header::Identity;
use super::scan::Function;

/// The extended capability.
pub(super) const SR_IOV: u16 = 0x10;
/// The extended capability by which a function has a function number of eight bits.
const ARI: u16 = 0x0e;

/// Registers, from the start of the capability.
const CONTROL: u16 = 0x08;
const TOTAL: u16 = 0x0e;
const COUNT: u16 = 0x10;
const OFFSET: u16 = 0x14;
const STRIDE: u16 = 0x16;
const DEVICE: u16 = 0x1a;
const PAGE_SIZES: u16 = 0x1c;
const PAGE_SIZE: u16 = 0x20;
const BARS: u16 = 0x24;

/// [`CONTROL`]: the virtual functions exist.
const ENABLE: u16 = 1 << 0;
/// [`CONTROL`]: they answer to their memory addresses.
const MEMORY: u16 = 1 << 3;
/// [`CONTROL`]: the port in front passes on all function numbers.
const ARI_HIERARCHY: u16 = 1 << 4;
/// Pages of 4 KiB, in both registers.
const PAGE_4_KIB: u32 = 1;

/// What a port can do, and what it does: ARI forwarding.
const PORT_CAPABILITIES: u16 = 0x24;
const PORT_CONTROL: u16 = 0x28;
const ARI_FORWARDING: u16 = 1 << 5;

/// How long virtual functions need before they can be spoken to, and their physical one after they are gone
/// (9.3.3.3.1).
const COMING: Duration = Duration::from_millis(100);
const GOING: Duration = Duration::from_secs(1);

/// Why there are no virtual functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrIovError {
    /// None, or more than there can be.
    #[error("there cannot be so many virtual functions")]
    BadCount,
    /// There are some already, or they are just coming or going.
    #[error("the number of virtual functions cannot be changed now")]
    Busy,
    /// Their memory would not be aligned to the machine's pages.
    #[error("the card has no pages of 4 KiB")]
    PageSize,
    /// The bus numbers or function numbers that they would have do not lead to the card.
    #[error("not all virtual functions can be reached")]
    Unreachable,
    /// There are no addresses left for their memory.
    #[error("there is no room for the memory of the virtual functions")]
    NoRoom,
    /// The card does not do what it is told.
    #[error("the card does not enable its virtual functions")]
    Refused,
}

/// Whoever drives a physical function and has a say in its virtual ones.
pub trait Mediator: fmt::Debug + Send + Sync {
    /// A virtual function is about to be offered to drivers: gives it what it needs.
    ///
    /// # Errors
    /// Any: the function stays as it is, and nobody can have it.
    fn prepare<'a>(&'a self, function: &'a PciDevice) -> BoxFuture<'a, Result<(), ProbeError>>;

    /// A virtual function that has been prepared is gone.
    fn released<'a>(&'a self, function: &'a PciDevice) -> BoxFuture<'a, ()>;
}

/// The virtual functions of a physical function.
#[derive(Clone, Debug)]
pub struct SrIov {
    bus: Arc<PciBus>,
    physical: Arc<PciDevice>,
    at: u16,
}

/// How many virtual functions there are and can be.
pub(super) fn count(config: &ConfigSpace, at: u16) -> (u16, u16) {
    let enabled = config.read16(at + CONTROL) & ENABLE != 0;
    let now = if enabled {
        config.read16(at + COUNT)
    } else {
        0
    };
    (now, config.read16(at + TOTAL))
}

impl SrIov {
    /// Those of `physical`, which is on `bus`; `None`, if it cannot have any.
    #[must_use]
    pub fn of(bus: &Arc<PciBus>, physical: &Arc<PciDevice>) -> Option<Self> {
        let at = capability::find_extended(physical.config(), SR_IOV)?;
        Some(Self {
            bus: Arc::clone(bus),
            physical: Arc::clone(physical),
            at,
        })
    }

    /// How many there can be.
    #[must_use]
    pub fn total(&self) -> u16 {
        count(self.physical.config(), self.at).1
    }

    /// Those that are on the bus.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<PciDevice>> {
        functions_of(&self.bus, &self.physical)
    }

    /// Makes `count` virtual functions and puts them on the bus, where drivers may claim them at once. Returns those
    /// that the [`Mediator`] lets others have.
    ///
    /// # Errors
    /// [`SrIovError`]: there are none.
    pub async fn enable(&self, count: u16) -> Result<Vec<Arc<PciDevice>>, SrIovError> {
        let _turn = self.physical.change_functions().ok_or(SrIovError::Busy)?;
        if self.control() & ENABLE != 0 {
            return Err(SrIovError::Busy);
        }
        if count == 0 || count > self.total() {
            return Err(SrIovError::BadCount);
        }
        let bars = self.set_up(count)?;
        let platform = self.physical.root().platform();
        platform.sleep(COMING).await;
        let found = self.find(count, &bars);
        if found.is_err() {
            self.switch_off().await;
        }
        Ok(self.register(found?).await)
    }

    /// Takes all virtual functions off the bus, the last one first, and ends them.
    ///
    /// # Errors
    /// [`SrIovError::Busy`].
    pub async fn disable(&self) -> Result<(), SrIovError> {
        let _turn = self.physical.change_functions().ok_or(SrIovError::Busy)?;
        take_off(&self.bus, &self.physical).await;
        self.switch_off().await;
        Ok(())
    }

    /// Everything up to the moment in which they exist. Nobody else gives addresses away meanwhile.
    fn set_up(&self, count: u16) -> Result<Bars, SrIovError> {
        let config = self.physical.config();
        if config.read32(self.at + PAGE_SIZES) & PAGE_4_KIB == 0 {
            return Err(SrIovError::PageSize);
        }
        config.write32(self.at + PAGE_SIZE, PAGE_4_KIB);
        let port = self.port();
        let hierarchy = self.enable_ari(port.as_deref());
        self.set_control(hierarchy);
        config.set16(self.at + COUNT, count);
        // The number of functions and the kind of hierarchy decide about offset and stride (9.3.3.9).
        if !self.are_reachable(count, port.as_deref(), hierarchy) {
            return Err(SrIovError::Unreachable);
        }
        let mut bars = size_registers(config, self.at + BARS, BAR_COUNT);
        let root = self.physical.root();
        if !root.reserve(&self.bus, &self.physical, &mut bars, count) {
            return Err(SrIovError::NoRoom);
        }
        for (index, bar) in bars.iter().enumerate() {
            if let Ok(Some(bar)) = bar {
                write_register(config, register(self.at + BARS, index), bar);
            }
        }
        self.set_control(hierarchy | ENABLE | MEMORY);
        Ok(bars)
    }

    /// The port that leads to the card.
    fn port(&self) -> Option<Arc<PciDevice>> {
        let above = self.physical.node().parent()?;
        let devices = self.bus.devices();
        devices
            .into_iter()
            .find(|device| Arc::ptr_eq(device.node(), &above))
    }

    /// Lets the port pass on function numbers of eight bits, if it can and the card has them.
    fn enable_ari(&self, port: Option<&PciDevice>) -> u16 {
        let possible = || {
            capability::find_extended(self.physical.config(), ARI)?;
            let port = port?.config();
            let at = capability::find(port, PCI_EXPRESS)?;
            if port.read16(at + PORT_CAPABILITIES) & ARI_FORWARDING == 0 {
                return None;
            }
            let control = port.read16(at + PORT_CONTROL);
            port.set16(at + PORT_CONTROL, control | ARI_FORWARDING);
            Some(ARI_HIERARCHY)
        };
        possible().unwrap_or(0)
    }

    /// Whether the places of all functions are different ones to which the port leads.
    fn are_reachable(&self, count: u16, port: Option<&PciDevice>, hierarchy: u16) -> bool {
        let last = self.place(count - 1);
        let own = self.physical.address().bus();
        let subordinate = port.map_or(own, |port| BusNumbers::read(port.config()).subordinate);
        // A port passes on requests for device 0 alone; the number of the device is part of ARI's function number.
        let devices = port.is_none() || hierarchy != 0;
        let reachable = |place: PciAddress| {
            place.bus() <= subordinate && (devices || place.bus() != own || place.device() == 0)
        };
        let config = self.physical.config();
        let apart = config.read16(self.at + OFFSET) != 0
            && (count == 1 || config.read16(self.at + STRIDE) != 0);
        apart && last.is_some() && (0..count).all(|index| self.place(index).is_some_and(reachable))
    }

    /// Where a virtual function is (9.2.1.2).
    fn place(&self, index: u16) -> Option<PciAddress> {
        let config = self.physical.config();
        let own = self.physical.address();
        let first = config.read16(self.at + OFFSET);
        let stride = config.read16(self.at + STRIDE);
        let own_id =
            u16::from(own.bus()) << 8 | u16::from(own.device()) << 3 | u16::from(own.function());
        let id = stride
            .checked_mul(index)?
            .checked_add(first)?
            .checked_add(own_id)?;
        let [rest, bus] = id.to_le_bytes();
        Some(PciAddress::new(own.segment(), bus, rest >> 3, rest & 7))
    }

    /// The virtual functions that exist now.
    fn find(&self, count: u16, bars: &Bars) -> Result<Vec<Function>, SrIovError> {
        let config = self.physical.config();
        if !config.is_present() || self.control() & ENABLE == 0 {
            return Err(SrIovError::Refused);
        }
        let vendor = self.physical.identity().vendor;
        let device = config.read16(self.at + DEVICE);
        let function = |index| {
            let place = self.place(index).ok_or(SrIovError::Unreachable)?;
            let config = ConfigSpace::new(Arc::clone(self.physical.root().access()), place);
            if !config.is_present() {
                return Err(SrIovError::Refused);
            }
            let mut bars = *bars;
            for bar in bars.iter_mut().flatten().flatten() {
                bar.address = bar.address.map(|first| first + u64::from(index) * bar.size);
            }
            Ok(Function {
                identity: Identity::read_as(&config, vendor, device),
                kind: HeaderType::Endpoint,
                bridge: None,
                config,
                bars,
            })
        };
        (0..count).map(function).collect()
    }

    async fn register(&self, functions: Vec<Function>) -> Vec<Arc<PciDevice>> {
        let mut devices = Vec::new();
        for function in functions {
            let address = function.config.address();
            let node = Node::child(self.physical.node(), &format!("pci{address}"));
            let root = Arc::clone(self.physical.root());
            let device = PciDevice::new(node, root, function);
            let device = Arc::new(device.of_physical(&self.physical));
            let prepared = match self.physical.mediator() {
                Some(mediator) => mediator.prepare(&device).await,
                None => Ok(()),
            };
            if let Err(error) = prepared {
                log::warn!("pci {address}: {error}");
            } else if let Err(error) = self.bus.add_device(Arc::clone(&device)).await {
                log::error!("pci {address}: {error}");
            } else {
                devices.push(device);
            }
        }
        devices
    }

    async fn switch_off(&self) {
        if self.control() & ENABLE != 0 {
            self.set_control(0);
            self.physical.root().platform().sleep(GOING).await;
        }
        self.physical.config().set16(self.at + COUNT, 0);
        self.physical.root().release(&self.physical);
    }

    fn control(&self) -> u16 {
        self.physical.config().read16(self.at + CONTROL)
    }

    fn set_control(&self, control: u16) {
        self.physical.config().set16(self.at + CONTROL, control);
    }
}

/// Takes the virtual functions of `physical` off the bus, the last one first.
pub(super) async fn take_off(bus: &PciBus, physical: &PciDevice) {
    while let Some(function) = functions_of(bus, physical).pop() {
        function.leave(bus).await;
        if let Some(mediator) = physical.mediator() {
            mediator.released(&function).await;
        }
    }
}

fn functions_of(bus: &PciBus, physical: &PciDevice) -> Vec<Arc<PciDevice>> {
    let mut devices = bus.devices();
    devices.retain(|device| {
        let own = device.physical_function();
        own.is_some_and(|own| core::ptr::eq(&raw const **own, physical))
    });
    devices
}
