//! Finding the functions on a bus and on the buses behind its bridges, and further root buses.
//!
//! Bus numbers that firmware gave are kept if they all make sense; otherwise every bridge gets new
//! ones, which is safe because nothing is in use yet. A root bus has its number from the machine.
//! One that no bridge leads to is only found by asking at every number that no bridge claims.
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
/// How many root buses a segment may have.
const ROOTS_MAX: usize = 32;

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

/// Which of the buses are root buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// The first.
    First,
    /// The first, and perhaps others.
    Any,
}

/// Finds every function on the root buses among `buses`, and on the others behind their bridges. A
/// bridge comes before what is behind it.
pub(super) fn scan(
    access: &Arc<dyn ConfigAccess>,
    buses: &RangeInclusive<u8>,
    roots: Roots,
) -> Vec<Function> {
    let mut functions = match Scan::run(access, buses, roots, Numbering::Keep) {
        Ok(functions) => functions,
        Err(Unnumbered) => Scan::run(access, buses, roots, Numbering::Assign).unwrap_or_default(),
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

/// Whether there is room for another root bus; says so, if not.
fn may_be_root(bus: u8, roots: &mut usize) -> bool {
    *roots += 1;
    if *roots == ROOTS_MAX + 1 {
        log::warn!(
            "pci: more than {ROOTS_MAX} root buses; bus {bus:02x} and the others are left alone"
        );
    }
    *roots <= ROOTS_MAX
}

struct Scan<'a> {
    access: &'a Arc<dyn ConfigAccess>,
    numbering: Numbering,
    /// The next bus number to give away.
    next: u16,
    /// The root buses, and what the bridges on them lead to.
    claimed: Vec<RangeInclusive<u8>>,
    functions: Vec<Function>,
}

impl<'a> Scan<'a> {
    fn run(
        access: &'a Arc<dyn ConfigAccess>,
        buses: &RangeInclusive<u8>,
        roots: Roots,
        numbering: Numbering,
    ) -> Result<Vec<Function>, Unnumbered> {
        let mut scan = Self {
            access,
            numbering,
            next: 0,
            claimed: Vec::new(),
            functions: Vec::new(),
        };
        match (roots, numbering) {
            (Roots::First, _) => scan.root(buses.clone())?,
            (Roots::Any, Numbering::Keep) => scan.keep_roots(buses)?,
            (Roots::Any, Numbering::Assign) => scan.number_roots(buses)?,
        }
        Ok(scan.functions)
    }

    /// Scans a root bus, the first of `buses`, and the others through its bridges.
    fn root(&mut self, buses: RangeInclusive<u8>) -> Result<(), Unnumbered> {
        let number = *buses.start();
        self.next = u16::from(number) + 1;
        self.claimed.push(number..=number);
        self.bus(None, buses, 0)
    }

    /// Scans the first of `buses`, and then whatever answers where no bridge leads.
    fn keep_roots(&mut self, buses: &RangeInclusive<u8>) -> Result<(), Unnumbered> {
        let first = self.look(*buses.start());
        self.root(buses.clone())?;
        let mut roots = 1;
        for bus in buses.clone() {
            if self.claimed.iter().any(|range| range.contains(&bus)) {
                continue;
            }
            let found = self.look(bus);
            if found.is_empty() {
                continue;
            }
            if found == first {
                // The machine does not look at bus numbers.
                break;
            }
            if may_be_root(bus, &mut roots) {
                self.root(bus..=*buses.end())?;
            }
        }
        Ok(())
    }

    /// Scans every root bus among `buses` and numbers the buses behind each with what is free
    /// before the next.
    fn number_roots(&mut self, buses: &RangeInclusive<u8>) -> Result<(), Unnumbered> {
        let first = *buses.start();
        self.forget_numbers(first);
        let here = self.look(first);
        let (mut roots, mut count) = (Vec::from([first]), 1);
        for bus in buses.clone().skip(1) {
            let found = self.look(bus);
            if found.is_empty() {
                continue;
            }
            if found == here {
                break;
            }
            if may_be_root(bus, &mut count) {
                // Once all bridges lead nowhere, only root buses answer.
                self.forget_numbers(bus);
                roots.push(bus);
            }
        }
        roots.retain(|&bus| bus == first || !self.look(bus).is_empty());
        for (at, &bus) in roots.iter().enumerate() {
            let last = roots.get(at + 1).map_or(*buses.end(), |next| next - 1);
            self.root(bus..=last)?;
        }
        Ok(())
    }

    /// What is on a bus, and where.
    fn look(&mut self, bus: u8) -> Vec<(u8, Identity)> {
        let at = |function: Function| {
            let address = function.config.address();
            (
                address.device() << 3 | address.function(),
                function.identity,
            )
        };
        self.devices(bus).map(at).collect()
    }

    /// Makes the bridges on a bus lead nowhere.
    fn forget_numbers(&mut self, bus: u8) {
        for function in self.devices(bus) {
            if function.kind == HeaderType::PciPciBridge {
                BusNumbers::NONE.write(&function.config);
            }
        }
    }

    /// The functions on a bus, which are not noted.
    fn devices(&mut self, bus: u8) -> impl Iterator<Item = Function> {
        let known = self.functions.len();
        for device in 0..DEVICES {
            self.device(None, bus, device);
        }
        self.functions.drain(known..)
    }

    fn config(&self, bus: u8, device: u8, number: u8) -> ConfigSpace {
        let address = PciAddress::new(self.access.segment(), bus, device, number);
        ConfigSpace::new(Arc::clone(self.access), address)
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
            let config = self.config(bus, device, number);
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
            let apart_from_roots = depth > 0 || self.claimed.iter().all(apart);
            if !inside || !apart_from_roots || !behind.iter().all(apart) {
                return Err(Unnumbered);
            }
            behind.push(range);
        }
        if depth == 0 {
            self.claimed.extend_from_slice(&behind);
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
