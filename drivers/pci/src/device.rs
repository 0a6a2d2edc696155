//! A PCI function on the bus, as its driver sees it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::ready;
use core::sync::atomic::{AtomicBool, Ordering};

use pci_types::{HeaderType, PciAddress};
use vdpa::Node;
use vdpa::bus::{Bus, BusDevice, ByBus, Exactness};
use vdpa::dma::IsolationUnit;
use vdpa::platform::BoxFuture;
use vdpa::tree::Inspect;

use super::access::ConfigSpace;
use super::claim::{Claim, ResourceError};
use super::function::FunctionState;
use super::header::Identity;
use super::id::PciId;
use super::scan::Function;
use super::segment::Segment;

/// The bus on which PCI functions meet their drivers.
pub type PciBus = Bus<PciDevice>;

/// One PCI function.
pub struct PciDevice {
    node: Arc<Node>,
    segment: Arc<Segment>,
    function: Arc<FunctionState>,
    unit: Arc<IsolationUnit>,
    /// Of a virtual function.
    physical: Option<Arc<PciDevice>>,
    /// Virtual functions come or go.
    changing: AtomicBool,
}

impl PciDevice {
    pub(super) fn new(
        node: Arc<Node>,
        segment: Arc<Segment>,
        found: Function,
        unit: Arc<IsolationUnit>,
    ) -> Self {
        let function = Arc::new(FunctionState::new(found));
        let inspector: Arc<dyn Inspect> = Arc::clone(&function) as _;
        node.set_inspector(Some(inspector));
        Self {
            node,
            segment,
            function,
            unit,
            physical: None,
            changing: AtomicBool::new(false),
        }
    }

    /// The same as a virtual function of `physical`.
    pub(super) fn of_physical(self, physical: &Arc<Self>) -> Self {
        Self {
            physical: Some(Arc::clone(physical)),
            ..self
        }
    }

    /// The physical function, if this is a virtual one.
    #[must_use]
    pub fn physical_function(&self) -> Option<&Arc<Self>> {
        self.physical.as_ref()
    }

    /// Takes the function off the bus. Another one may be at its place next.
    pub(super) fn leave<'a>(self: &'a Arc<Self>, bus: &'a PciBus) -> BoxFuture<'a, ()> {
        Box::pin(async {
            bus.remove_device(self).await;
            self.function.config.lose();
        })
    }

    /// Its virtual functions that are on the bus.
    pub(super) fn virtual_functions(&self, bus: &PciBus) -> Vec<Arc<Self>> {
        let mut devices = bus.devices();
        devices.retain(|device| {
            let own = device.physical_function();
            own.is_some_and(|own| core::ptr::eq(&raw const **own, self))
        });
        devices
    }

    /// Takes its virtual functions off the bus, the last one first.
    pub(super) async fn remove_virtual_functions(&self, bus: &PciBus) {
        while let Some(function) = self.virtual_functions(bus).pop() {
            function.leave(bus).await;
        }
    }

    /// The right to change the function's virtual functions, if nobody has it.
    pub(super) fn change_functions(&self) -> Option<Changing<'_>> {
        let taken = self.changing.swap(true, Ordering::Acquire);
        (!taken).then_some(Changing(&self.changing))
    }

    /// The segment that the function is on.
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The function as it was found, apart from what is in front of it.
    pub(super) fn as_found(&self) -> Function {
        self.function.as_found()
    }

    /// Where the function is.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.function.config.address()
    }

    /// Who the function is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.function.identity
    }

    /// The configuration space.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.function.config
    }

    /// What an IOMMU can tell apart that has the function: it, and others for which that stands.
    #[must_use]
    pub fn isolation_unit(&self) -> &Arc<IsolationUnit> {
        &self.unit
    }

    /// Takes the function's registers, which only one owner has at a time.
    ///
    /// # Errors
    /// [`ResourceError::Claimed`], as long as somebody holds a claim or a mapping from an earlier
    /// one; [`ResourceError::Unassigned`], if a memory BAR found no room.
    pub fn claim(&self) -> Result<Claim, ResourceError> {
        Claim::new(&self.function, &self.unit, self.segment.platform())
    }
}

/// The right to change a function's virtual functions.
pub(super) struct Changing<'a>(&'a AtomicBool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl BusDevice for PciDevice {
    type Id = PciId;

    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn match_name(&self) -> &str {
        "pci"
    }

    fn matches(&self, id: &PciId) -> bool {
        id.matches(&self.function.identity)
    }

    fn exactness(id: &PciId) -> Exactness {
        id.exactness()
    }

    fn alias(&self) -> String {
        let Identity {
            vendor,
            device,
            subvendor,
            subdevice,
            class,
            ..
        } = self.function.identity;
        let [interface, subclass, base, _] = class.to_le_bytes();
        format!(
            "pci:v{vendor:08X}d{device:08X}sv{subvendor:08X}sd{subdevice:08X}bc{base:02X}sc{subclass:02X}i{interface:02X}"
        )
    }

    /// Virtual functions go before their physical one.
    fn before_remove<'a>(&'a self, bus: &'a PciBus) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.remove_virtual_functions(bus).await;
            self.segment.release(self.address());
        })
    }

    /// Ends all access of the function to memory, interrupts included. What a bridge passes on is
    /// not its own.
    fn quiesce(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        if self.function.kind != HeaderType::PciPciBridge {
            self.function.config.stop_bus_master();
        }
        Box::pin(ready(()))
    }
}

impl fmt::Debug for PciDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { vendor, device, .. } = self.function.identity;
        write!(
            f,
            "PciDevice({} [{vendor:04x}:{device:04x}])",
            self.address()
        )
    }
}
