//! A PCI function on the bus, as its driver sees it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::ready;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use pci_types::{CommandRegister, PciAddress};
use vdpa::bus::{Bus, BusDevice, Exactness};
use vdpa::platform::BoxFuture;
use vdpa::tree::{Inspect, Report};
use vdpa::{Node, Platform};

use super::access::ConfigSpace;
use super::bar::Bars;
use super::capability::{CapabilityError, capabilities, extended_capabilities};
use super::claim::{Claim, ResourceError};
use super::header::Identity;
use super::id::PciId;

/// The bus on which PCI functions meet their drivers.
pub type PciBus = Bus<PciDevice>;

/// One PCI function.
pub struct PciDevice {
    node: Arc<Node>,
    platform: Arc<dyn Platform>,
    function: Arc<FunctionState>,
}

/// What a function's device, its claim and its inspector share.
pub(super) struct FunctionState {
    pub(super) config: ConfigSpace,
    pub(super) identity: Identity,
    pub(super) bars: Bars,
    /// Somebody may reach the function's registers.
    pub(super) claimed: AtomicBool,
    /// MSI-X vectors in use.
    pub(super) vectors: AtomicU16,
}

impl PciDevice {
    pub(super) fn new(
        node: Arc<Node>,
        platform: Arc<dyn Platform>,
        config: ConfigSpace,
        identity: Identity,
        bars: Bars,
    ) -> Self {
        let claimed = AtomicBool::new(false);
        let vectors = AtomicU16::new(0);
        let function = FunctionState {
            config,
            identity,
            bars,
            claimed,
            vectors,
        };
        let function = Arc::new(function);
        let inspector: Arc<dyn Inspect> = Arc::clone(&function) as _;
        node.set_inspector(Some(inspector));
        Self {
            node,
            platform,
            function,
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
        Claim::new(&self.function, &self.platform)
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

    /// Ends all access of the function to memory, interrupts included.
    fn quiesce(&self) -> BoxFuture<'_, ()> {
        let master = CommandRegister::BUS_MASTER_ENABLE;
        self.function
            .config
            .update_command(|command| command.difference(master));
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
