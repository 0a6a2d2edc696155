//! Finding the functions of a segment, all of them or those behind one port, and making devices of
//! them.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use pci_types::{HeaderType, PciAddress};
use vdpa::Node;
use vdpa::bus::BusDevice;
use vdpa::platform::BoxFuture;

use super::assign::{Space, Taken, assign, place_runs};
use super::bar::{Bar, Bars};
use super::bridge::BusNumbers;
use super::device::{PciBus, PciDevice};
use super::isolation::Units;
use super::scan::{Function, Roots, scan};
use super::segment::Segment;

impl Segment {
    /// Finds every function, gives addresses to registers that have none, and puts the functions on
    /// the bus. Returns how many there are.
    pub(super) async fn enumerate(
        self: &Arc<Self>,
        bus: &Arc<PciBus>,
        root: &Arc<Node>,
        roots: Roots,
    ) -> usize {
        let access = self.access();
        let mut functions = scan(access, &access.buses(), roots);
        assign(&mut functions, self.windows(), None, iter::empty());
        self.register(bus, root, Vec::new(), functions).await
    }

    /// As [`enumerate`](Self::enumerate), for the functions behind a port where there were none
    /// before. They get addresses in the port's windows; if these do not do, the port gets another
    /// one.
    pub(super) async fn enumerate_behind(
        self: &Arc<Self>,
        bus: &Arc<PciBus>,
        port: &Arc<PciDevice>,
    ) -> usize {
        let (known, functions) = self.find_behind(bus, port);
        self.register(bus, port.node(), known, functions).await
    }

    /// The devices of the segment, and all its functions: theirs, then those found behind `port`.
    fn find_behind(
        self: &Arc<Self>,
        bus: &PciBus,
        port: &Arc<PciDevice>,
    ) -> (Vec<Arc<PciDevice>>, Vec<Function>) {
        let reserved = self.reserved.lock();
        let (known, mut functions) = self.known(bus);
        let numbers = BusNumbers::read(port.config());
        let port = known.iter().position(|device| Arc::ptr_eq(device, port));
        if let Some(port) = port
            && numbers.secondary != 0
        {
            let first = functions.len();
            let buses = numbers.secondary..=numbers.subordinate;
            for mut function in scan(self.access(), &buses, Roots::First) {
                function.bridge = function.bridge.map_or(Some(port), |at| Some(first + at));
                functions.push(function);
            }
            let taken: Vec<_> = taken(&reserved, &functions).collect();
            assign(
                &mut functions,
                self.windows(),
                Some(port),
                taken.into_iter(),
            );
        }
        (known, functions)
    }

    /// The devices of the segment, and their functions.
    pub(super) fn known(self: &Arc<Self>, bus: &PciBus) -> (Vec<Arc<PciDevice>>, Vec<Function>) {
        let mut known = bus.devices();
        known.retain(|device| Arc::ptr_eq(device.segment(), self));
        let mut functions: Vec<Function> = known.iter().map(|device| device.as_found()).collect();
        for at in 0..functions.len() {
            functions[at].bridge = bridge_to(&functions, functions[at].config.address().bus());
        }
        (known, functions)
    }

    /// Makes devices of the functions after the `known` ones.
    fn register<'a>(
        self: &'a Arc<Self>,
        bus: &'a Arc<PciBus>,
        root: &'a Arc<Node>,
        known: Vec<Arc<PciDevice>>,
        functions: Vec<Function>,
    ) -> BoxFuture<'a, usize> {
        Box::pin(self.register_all(bus, root, known, functions))
    }

    async fn register_all(
        self: &Arc<Self>,
        bus: &Arc<PciBus>,
        root: &Arc<Node>,
        known: Vec<Arc<PciDevice>>,
        functions: Vec<Function>,
    ) -> usize {
        let first = known.len();
        let units = Units::plan(self, &functions, first);
        let mut devices = known;
        for (index, function) in functions.into_iter().skip(first).enumerate() {
            let parent = function
                .bridge
                .map_or(root, |bridge| devices[bridge].node());
            let address = function.config.address();
            let node = Node::child(parent, &format!("pci{address}"));
            let unit = units.of(index, &node, address);
            let device = PciDevice::new(node, Arc::clone(self), function, unit);
            devices.push(Arc::new(device));
        }
        let is_first = |device: &&Arc<PciDevice>| {
            let mut ids = self.first.iter();
            ids.any(|id| id.matches(device.identity()))
        };
        let (early, late): (Vec<_>, Vec<_>) = devices[first..].iter().partition(is_first);
        if !early.is_empty() {
            // What comes first also goes down last, and the tree says in which order.
            for device in late.iter().filter(|device| has_parent(device.node(), root)) {
                device.node().reparent(root);
            }
        }
        for device in early.into_iter().chain(late) {
            if let Err(error) = bus.add_device(Arc::clone(device)).await {
                log::error!("pci {}: {error}", device.address());
            } else if bus.driver_of(device).is_none() {
                log::debug!("pci {}: no driver ({})", device.address(), device.alias());
            }
        }
        devices.len() - first
    }

    /// Finds places for the memory of `count` virtual functions of `physical`, and keeps them until
    /// they are [released](Self::release). Whether there are any.
    pub(super) fn reserve(
        self: &Arc<Self>,
        bus: &PciBus,
        physical: &Arc<PciDevice>,
        bars: &mut Bars,
        count: u16,
    ) -> bool {
        let mut reserved = self.reserved.lock();
        let (known, mut functions) = self.known(bus);
        let Some(at) = known
            .iter()
            .position(|device| Arc::ptr_eq(device, physical))
        else {
            return false;
        };
        let taken: Vec<_> = taken(&reserved, &functions).collect();
        let windows = self.windows();
        if !place_runs(&mut functions, windows, at, taken.into_iter(), bars, count) {
            return false;
        }
        let bars = bars.iter().flatten().flatten();
        reserved.extend(bars.filter_map(|bar: &Bar| {
            let start = bar.address?;
            Some((
                physical.address(),
                start..start + bar.size * u64::from(count),
            ))
        }));
        true
    }
}

/// Whether a node hangs right below another one.
fn has_parent(node: &Node, parent: &Arc<Node>) -> bool {
    node.parent()
        .is_some_and(|above| Arc::ptr_eq(&above, parent))
}

/// What is reserved, by the bridges in front of it.
fn taken(
    reserved: &[(PciAddress, Range<u64>)],
    functions: &[Function],
) -> impl Iterator<Item = Taken> {
    reserved.iter().map(|(function, range)| Taken {
        bridge: bridge_to(functions, function.bus()),
        space: Space::Memory,
        range: range.clone(),
    })
}

/// The bridge right behind which `bus` is.
fn bridge_to(functions: &[Function], bus: u8) -> Option<usize> {
    functions.iter().position(|function| {
        function.kind == HeaderType::PciPciBridge
            && bus != 0
            && BusNumbers::read(&function.config).secondary == bus
    })
}
