//! SR-IOV: virtual functions of a card, each a function of its own for its driver.
//!
//! They come and go together. Each is a device on the bus below its physical function, with the ids
//! and the memory that the capability of that one tells.
//!
//! Source: PCI Express Base 6.0, 9 (SR-IOV), 9.3.3 (registers), 6.13 and 7.8.8 (ARI).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use pci_types::HeaderType;
use vdpa::Node;
use vdpa::bus::BusDevice;

use super::access::ConfigSpace;
use super::bar::Bars;
use super::bridge::BusNumbers;
use super::capability::{self, PCI_EXPRESS};
use super::device::{PciBus, PciDevice};
use super::header::Identity;
use super::isolation::Units;
use super::scan::Function;
use super::sriov_capability::{Control, SrIovCapability};

/// The extended capability by which a function has a function number of eight bits.
const ARI: u16 = 0x0e;

/// What a port can do, and what it does: ARI forwarding.
const PORT_CAPABILITIES: u16 = 0x24;
const PORT_CONTROL: u16 = 0x28;
const ARI_FORWARDING: u16 = 1 << 5;

/// How long virtual functions need before they can be spoken to, and their physical one after they
/// are gone (9.3.3.3.1).
const COMING: Duration = Duration::from_millis(100);
const GOING: Duration = Duration::from_secs(1);

/// Why there are no virtual functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrIovError {
    /// None, or more than there can be.
    #[error("the card has at most {total} virtual functions")]
    BadCount {
        /// How many there can be.
        total: u16,
    },
    /// There are some already, or they are just coming or going.
    #[error("there are virtual functions already; set numvfs to 0 first")]
    Busy,
    /// Their memory would not be aligned to the machine's pages.
    #[error("the card has no pages of 4 KiB")]
    PageSize,
    /// They would be on buses that do not lead to the card.
    #[error("there are no bus numbers left for the virtual functions")]
    NoBusNumbers,
    /// The function numbers that they would have do not lead to the card, or are those of others.
    #[error("the function numbers of the virtual functions cannot be reached")]
    Unreachable,
    /// There are no addresses left for their memory.
    #[error("there is no room for the memory of the virtual functions")]
    NoRoom,
    /// The card does not do what it is told.
    #[error("the card does not enable its virtual functions")]
    Refused,
}

/// The virtual functions of a physical function.
#[derive(Clone, Debug)]
pub struct SrIov {
    bus: Arc<PciBus>,
    physical: Arc<PciDevice>,
    capability: SrIovCapability,
}

impl SrIov {
    /// Those of `physical`, which is on `bus`; `None`, if it cannot have any.
    #[must_use]
    pub fn of(bus: &Arc<PciBus>, physical: &Arc<PciDevice>) -> Option<Self> {
        let capability = SrIovCapability::find(physical.config())?;
        Some(Self {
            bus: Arc::clone(bus),
            physical: Arc::clone(physical),
            capability,
        })
    }

    /// How many there can be.
    #[must_use]
    pub fn total(&self) -> u16 {
        self.capability.total()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.capability.enabled_count()
    }

    /// Those that are on the bus.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<PciDevice>> {
        self.physical.virtual_functions(&self.bus)
    }

    /// Makes `count` virtual functions where there are none, or takes all away if it is 0. If there
    /// are so many already, nothing happens.
    ///
    /// # Errors
    /// [`SrIovError`]: the virtual functions are as before.
    pub async fn set_count(&self, count: u16) -> Result<(), SrIovError> {
        match count {
            0 => self.disable().await,
            _ if count == self.count() => Ok(()),
            _ => self.enable(count).await.map(drop),
        }
    }

    /// Makes `count` virtual functions and puts them on the bus, where drivers may claim them at
    /// once. Returns them.
    ///
    /// # Errors
    /// [`SrIovError`]: there are none.
    pub async fn enable(&self, count: u16) -> Result<Vec<Arc<PciDevice>>, SrIovError> {
        let _turn = self.physical.change_functions().ok_or(SrIovError::Busy)?;
        if self.capability.control().contains(Control::ENABLE) {
            return Err(SrIovError::Busy);
        }
        let total = self.total();
        if count == 0 || count > total {
            return Err(SrIovError::BadCount { total });
        }
        let bars = self.set_up(count)?;
        let platform = self.physical.segment().platform();
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
        self.physical.remove_virtual_functions(&self.bus).await;
        self.switch_off().await;
        Ok(())
    }

    /// Everything up to the moment in which they exist. Nobody else gives addresses away meanwhile.
    fn set_up(&self, count: u16) -> Result<Bars, SrIovError> {
        if !self.capability.set_page_size() {
            return Err(SrIovError::PageSize);
        }
        let port = self.port();
        let hierarchy = self.enable_ari(port.as_deref());
        self.capability.set_control(hierarchy);
        self.capability.set_count(count);
        self.check_places(count, port.as_deref(), hierarchy)?;
        let mut bars = self.capability.size_bars();
        let segment = self.physical.segment();
        if !segment.reserve(&self.bus, &self.physical, &mut bars, count) {
            return Err(SrIovError::NoRoom);
        }
        self.capability.write_bars(&bars);
        let on = Control::ENABLE | Control::MEMORY;
        self.capability.set_control(hierarchy | on);
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
    fn enable_ari(&self, port: Option<&PciDevice>) -> Control {
        let possible = || {
            capability::find_extended(self.physical.config(), ARI)?;
            let port = port?.config();
            let at = capability::find(port, PCI_EXPRESS)?;
            if port.read16(at + PORT_CAPABILITIES) & ARI_FORWARDING == 0 {
                return None;
            }
            let control = port.read16(at + PORT_CONTROL);
            port.set16(at + PORT_CONTROL, control | ARI_FORWARDING);
            Some(Control::ARI_HIERARCHY)
        };
        possible().unwrap_or(Control::empty())
    }

    /// Whether the places of all functions are different ones to which the port leads, and nobody
    /// else's.
    fn check_places(
        &self,
        count: u16,
        port: Option<&PciDevice>,
        hierarchy: Control,
    ) -> Result<(), SrIovError> {
        if !self.capability.are_apart(count) {
            return Err(SrIovError::Unreachable);
        }
        let own = self.physical.address().bus();
        let subordinate = port.map_or(own, |port| BusNumbers::read(port.config()).subordinate);
        // A port passes on requests for device 0 alone; the number of the device is part of ARI's
        // function number.
        let devices = port.is_none() || !hierarchy.is_empty();
        let others = self.bus.devices();
        (0..count).try_for_each(|index| {
            // Beyond the last bus there is no place.
            let place = self.capability.place(index);
            let place = place.filter(|place| place.bus() <= subordinate);
            let place = place.ok_or(SrIovError::NoBusNumbers)?;
            let leads_there = devices || place.bus() != own || place.device() == 0;
            let free = others.iter().all(|other| other.address() != place);
            (leads_there && free)
                .then_some(())
                .ok_or(SrIovError::Unreachable)
        })
    }

    /// The virtual functions that exist now.
    fn find(&self, count: u16, bars: &Bars) -> Result<Vec<Function>, SrIovError> {
        let enabled = self.capability.control().contains(Control::ENABLE);
        if !self.physical.config().is_present() || !enabled {
            return Err(SrIovError::Refused);
        }
        let vendor = self.physical.identity().vendor;
        let device = self.capability.device();
        let function = |index| {
            let place = self.capability.place(index);
            let place = place.ok_or(SrIovError::Unreachable)?;
            let access = Arc::clone(self.physical.segment().access());
            let config = ConfigSpace::new(access, place);
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
        let places = functions.iter().map(|function| function.config.address());
        let units = Units::plan_virtual(&self.bus, &self.physical, places);
        let mut devices = Vec::new();
        for (index, function) in functions.into_iter().enumerate() {
            let address = function.config.address();
            let node = Node::child(self.physical.node(), &format!("pci{address}"));
            let segment = Arc::clone(self.physical.segment());
            let unit = units.of(index, &node, address);
            let device = PciDevice::new(node, segment, function, unit);
            let device = Arc::new(device.of_physical(&self.physical));
            if let Err(error) = self.bus.add_device(Arc::clone(&device)).await {
                log::error!("pci {address}: {error}");
            } else {
                devices.push(device);
            }
        }
        devices
    }

    async fn switch_off(&self) {
        if self.capability.control().contains(Control::ENABLE) {
            self.capability.set_control(Control::empty());
            self.physical.segment().platform().sleep(GOING).await;
        }
        self.capability.set_count(0);
        self.physical.segment().release(self.physical.address());
    }
}
