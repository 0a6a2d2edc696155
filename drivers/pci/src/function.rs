//! What is known of a function from the moment in which it was found.
//!
//! Its device, its claim and its inspector share it. Who uses the function, and what for, is no
//! business of this module.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use pci_types::HeaderType;
use vdpa::tree::{Inspect, Report};

use super::access::ConfigSpace;
use super::bar::Bars;
use super::capability::{CapabilityError, capabilities, extended_capabilities};
use super::class;
use super::header::Identity;
use super::scan::Function;
use super::sriov_capability::SrIovCapability;

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

impl FunctionState {
    pub(super) fn new(found: Function) -> Self {
        Self {
            config: found.config,
            identity: found.identity,
            kind: found.kind,
            bars: found.bars,
            claimed: AtomicBool::new(false),
            vectors: AtomicU16::new(0),
        }
    }

    /// The function as it was found, apart from what is in front of it.
    pub(super) fn as_found(&self) -> Function {
        Function {
            config: self.config.clone(),
            identity: self.identity,
            kind: self.kind,
            bridge: None,
            bars: self.bars,
        }
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
        if let Some(name) = class::name(class) {
            facts.push(("class name", name.to_string()));
        }
        if let Some(sriov) = SrIovCapability::find(&self.config) {
            let (now, total) = (sriov.enabled_count(), sriov.total());
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
