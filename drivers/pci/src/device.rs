//! A PCI function on the bus, as its driver sees it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::ready;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use pci_types::{HeaderType, PciAddress};
use spin::Mutex;
use vdpa::Node;
use vdpa::bus::{Bus, BusDevice, Exactness};
use vdpa::platform::BoxFuture;
use vdpa::tree::{Inspect, Report};

use super::access::ConfigSpace;
use super::bar::Bars;
use super::capability::{self, CapabilityError, capabilities, extended_capabilities};
use super::claim::{Claim, ResourceError};
use super::header::Identity;
use super::id::PciId;
use super::root::PciRoot;
use super::scan::Function;
use super::sriov::{self, Mediator, SR_IOV};

/// The bus on which PCI functions meet their drivers.
pub type PciBus = Bus<PciDevice>;

/// One PCI function.
pub struct PciDevice {
    node: Arc<Node>,
    root: Arc<PciRoot>,
    function: Arc<FunctionState>,
    /// Of a virtual function.
    physical: Option<Arc<PciDevice>>,
    mediator: Mutex<Option<Arc<dyn Mediator>>>,
    /// Virtual functions come or go.
    changing: AtomicBool,
}

/// What a function's device, its claim and its inspector share.
pub(super) struct FunctionState {
    pub(super) config: ConfigSpace,
    pub(super) identity: Identity,
    pub(super) kind: HeaderType,
    pub(super) bars: Bars,
    /// Somebody may reach the function's registers.
    pub(super) claimed: AtomicBool,
    /// MSI-X vectors in use.
    pub(super) vectors: AtomicU16,
}

impl PciDevice {
    pub(super) fn new(node: Arc<Node>, root: Arc<PciRoot>, found: Function) -> Self {
        let function = FunctionState {
            config: found.config,
            identity: found.identity,
            kind: found.kind,
            bars: found.bars,
            claimed: AtomicBool::new(false),
            vectors: AtomicU16::new(0),
        };
        let function = Arc::new(function);
        let inspector: Arc<dyn Inspect> = Arc::clone(&function) as _;
        node.set_inspector(Some(inspector));
        Self {
            node,
            root,
            function,
            physical: None,
            mediator: Mutex::new(None),
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

    /// Says who has a say in the function's virtual functions: whoever drives it. They are disabled before it lets
    /// the function go.
    pub fn set_mediator(&self, mediator: Option<Arc<dyn Mediator>>) {
        let before = core::mem::replace(&mut *self.mediator.lock(), mediator);
        drop(before);
    }

    pub(super) fn mediator(&self) -> Option<Arc<dyn Mediator>> {
        self.mediator.lock().clone()
    }

    /// The right to change the function's virtual functions, if nobody has it.
    pub(super) fn change_functions(&self) -> Option<Changing<'_>> {
        let taken = self.changing.swap(true, Ordering::Acquire);
        (!taken).then_some(Changing(&self.changing))
    }

    /// The segment that the function is on.
    pub(super) fn root(&self) -> &Arc<PciRoot> {
        &self.root
    }

    /// The function as it was found, apart from what is in front of it.
    pub(super) fn as_found(&self) -> Function {
        Function {
            config: self.function.config.clone(),
            identity: self.function.identity,
            kind: self.function.kind,
            bridge: None,
            bars: self.function.bars,
        }
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

    /// Takes the function's registers, which only one owner has at a time.
    ///
    /// # Errors
    /// [`ResourceError::Claimed`], as long as somebody holds a claim or a mapping from an earlier one;
    /// [`ResourceError::Unassigned`], if a memory BAR found no room.
    pub fn claim(&self) -> Result<Claim, ResourceError> {
        Claim::new(&self.function, self.root.platform())
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
            sriov::take_off(bus, self).await;
            self.root.release(self);
        })
    }

    /// Ends all access of the function to memory, interrupts included. What a bridge passes on is not its own.
    fn quiesce(&self) -> BoxFuture<'_, ()> {
        if self.function.kind != HeaderType::PciPciBridge {
            self.function.config.stop_bus_master();
        }
        Box::pin(ready(()))
    }
}

impl Inspect for FunctionState {
    fn report(&self) -> Report {
        let Identity {
            vendor,
            device,
            subvendor,
            subdevice,
            class,
            ..
        } = self.identity;
        let mut facts = Vec::from([
            ("id", format!("{vendor:04x}:{device:04x}")),
            ("subsystem", format!("{subvendor:04x}:{subdevice:04x}")),
            ("class", format!("{class:06x}")),
        ]);
        if let Some(at) = capability::find_extended(&self.config, SR_IOV) {
            let (now, total) = sriov::count(&self.config, at);
            facts.push(("SR-IOV", format!("{now} of {total} VFs")));
        }
        const NAMES: [&str; 6] = ["BAR 0", "BAR 1", "BAR 2", "BAR 3", "BAR 4", "BAR 5"];
        for (name, bar) in NAMES.into_iter().zip(&self.bars) {
            match bar {
                Ok(None) => {}
                Ok(Some(bar)) => facts.push((name, bar.to_string())),
                Err(error) => facts.push((name, error.to_string())),
            }
        }
        let ids = capabilities(&self.config).map(|list| list.into_iter().map(|c| u16::from(c.id)));
        facts.push(("capabilities", listing(ids)));
        let ids = extended_capabilities(&self.config).map(|list| list.into_iter().map(|c| c.id));
        facts.push(("extended capabilities", listing(ids)));
        facts.push((
            "MSI-X vectors",
            self.vectors.load(Ordering::Relaxed).to_string(),
        ));
        Report {
            facts,
            ..Report::default()
        }
    }
}

fn listing(ids: Result<impl Iterator<Item = u16>, CapabilityError>) -> String {
    match ids {
        Ok(ids) => ids
            .map(|id| format!("{id:#04x}"))
            .collect::<Vec<_>>()
            .join(" "),
        Err(error) => error.to_string(),
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
