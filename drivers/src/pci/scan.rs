//! Finding the functions on a bus and on the buses behind its bridges.
//!
//! Bus numbers that firmware gave are kept if they all make sense; otherwise every bridge gets new
//! ones, which is safe because nothing is in use yet.
//!
//! Source: PCI-to-PCI Bridge 1.2, 3.2.5.3 to 3.2.5.5; PCI Local Bus 3.0, 3.2.2.3.4.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use pci_types::{HeaderType, PciAddress};

use super::access::{ConfigAccess, ConfigSpace};
use super::bar::{BAR_COUNT, Bars, size_bars};
use super::bridge::BusNumbers;
use super::header::{self, Identity};

/// How many bridges may lie one behind the other.
const DEPTH_MAX: usize = 16;
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

/// A function that was found.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) config: ConfigSpace,
    pub(super) identity: Identity,
    pub(super) kind: HeaderType,
    /// The bridge in front of it, as an index into the list; that index is smaller than its own.
    pub(super) bridge: Option<usize>,
    pub(super) bars: Bars,
}

/// Finds every function on the first of `buses`, and on the others behind its bridges. A bridge comes before
/// what is behind it.
pub(super) fn scan(access: &Arc<dyn ConfigAccess>, buses: &RangeInclusive<u8>) -> Vec<Function> {
    let mut functions = match Scan::run(access, buses, Numbering::Keep) {
        Ok(functions) => functions,
        Err(Unnumbered) => Scan::run(access, buses, Numbering::Assign).unwrap_or_default(),
    };
    for function in &mut functions {
        // A host bridge's registers, if any, are wired to the machine: decode must stay on.
        if !function.identity.is_host_bridge() {
            function.bars = size_bars(&function.config);
        }
    }
    functions
}

/// What to do with the bus numbers of bridges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbering {
    Keep,
    Assign,
}

/// A bridge has bus numbers that do not fit its place.
struct Unnumbered;

struct Scan<'a> {
    access: &'a Arc<dyn ConfigAccess>,
    numbering: Numbering,
    /// The next bus number to give away.
    next: u16,
    functions: Vec<Function>,
}

impl<'a> Scan<'a> {
    fn run(
        access: &'a Arc<dyn ConfigAccess>,
        buses: &RangeInclusive<u8>,
        numbering: Numbering,
    ) -> Result<Vec<Function>, Unnumbered> {
        let next = u16::from(*buses.start()) + 1;
        let mut scan = Self {
            access,
            numbering,
            next,
            functions: Vec::new(),
        };
        scan.bus(None, buses.clone(), 0)?;
        Ok(scan.functions)
    }

    /// Scans the first of `buses`, and the others through the bridges that lead there.
    fn bus(
        &mut self,
        bridge: Option<usize>,
        buses: RangeInclusive<u8>,
        depth: usize,
    ) -> Result<(), Unnumbered> {
        let first = self.functions.len();
        for device in 0..DEVICES {
            self.device(bridge, *buses.start(), device);
        }
        let here = first..self.functions.len();
        let bridges = here.filter(|&at| self.functions[at].kind == HeaderType::PciPciBridge);
        let bridges: Vec<usize> = bridges.collect();
        match self.numbering {
            Numbering::Keep => self.follow(&bridges, &buses, depth),
            Numbering::Assign => self.number(&bridges, &buses, depth),
        }
    }

    fn device(&mut self, bridge: Option<usize>, bus: u8, device: u8) {
        let mut count = 1;
        let mut number = 0;
        while number < count {
            let address = PciAddress::new(self.access.segment(), bus, device, number);
            let config = ConfigSpace::new(Arc::clone(self.access), address);
            number += 1;
            let Some(identity) = Identity::read(&config) else {
                // Function 0 always exists, and it alone says whether there are more.
                continue;
            };
            if header::is_multi_function(&config) {
                count = FUNCTIONS;
            }
            let kind = header::kind(&config);
            let bars = [Ok(None); BAR_COUNT];
            self.functions.push(Function {
                config,
                identity,
                kind,
                bridge,
                bars,
            });
        }
    }

    /// Scans behind bridges whose numbers are right: inside `buses`, and apart from each other.
    fn follow(
        &mut self,
        bridges: &[usize],
        buses: &RangeInclusive<u8>,
        depth: usize,
    ) -> Result<(), Unnumbered> {
        let mut behind: Vec<RangeInclusive<u8>> = Vec::new();
        for &bridge in bridges {
            let numbers = BusNumbers::read(&self.functions[bridge].config);
            let range = numbers.secondary..=numbers.subordinate;
            let inside = numbers.primary == *buses.start()
                && numbers.secondary > *buses.start()
                && numbers.subordinate <= *buses.end()
                && !range.is_empty();
            let apart = |other: &RangeInclusive<u8>| {
                range.end() < other.start() || other.end() < range.start()
            };
            if !inside || !behind.iter().all(apart) {
                return Err(Unnumbered);
            }
            behind.push(range);
        }
        for (&bridge, range) in bridges.iter().zip(behind) {
            if !self.is_too_deep(bridge, depth) {
                self.bus(Some(bridge), range, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Gives the bridges numbers and scans behind them, one after the other.
    fn number(
        &mut self,
        bridges: &[usize],
        buses: &RangeInclusive<u8>,
        depth: usize,
    ) -> Result<(), Unnumbered> {
        // Stale numbers would make two bridges answer for one bus.
        for &bridge in bridges {
            BusNumbers::NONE.write(&self.functions[bridge].config);
        }
        for &bridge in bridges {
            let config = self.functions[bridge].config.clone();
            let free = u8::try_from(self.next)
                .ok()
                .filter(|next| buses.contains(next));
            let Some(secondary) = free else {
                log::warn!(
                    "pci {}: no bus number left for this bridge",
                    config.address()
                );
                continue;
            };
            if self.is_too_deep(bridge, depth) {
                continue;
            }
            self.next += 1;
            let (primary, last) = (*buses.start(), *buses.end());
            // Until it is known how many buses lie behind it, the bridge answers for all the rest.
            BusNumbers {
                primary,
                secondary,
                subordinate: last,
            }
            .write(&config);
            self.bus(Some(bridge), secondary..=last, depth + 1)?;
            let subordinate = u8::try_from(self.next - 1).unwrap_or(last);
            BusNumbers {
                primary,
                secondary,
                subordinate,
            }
            .write(&config);
        }
        Ok(())
    }

    fn is_too_deep(&self, bridge: usize, depth: usize) -> bool {
        let too_deep = depth >= DEPTH_MAX;
        if too_deep {
            let address = self.functions[bridge].config.address();
            log::warn!("pci {address}: too many bridges one behind the other; not followed");
        }
        too_deep
    }
}
