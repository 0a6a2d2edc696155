//! From a host bridge to devices on the PCI bus.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::{fmt, iter};

use pci_types::{HeaderType, PciAddress};
use spin::Mutex;
use vdpa::bus::BusDevice;
use vdpa::platform::BoxFuture;
use vdpa::{Node, Platform};

use super::access::ConfigAccess;
use super::assign::{Space, Taken, Windows, assign, place_runs};
use super::bar::{Bar, Bars};
use super::bridge::BusNumbers;
use super::device::{PciBus, PciDevice};
use super::scan::{Function, Roots, scan};

/// One PCI segment below its host bridge.
pub struct PciRoot {
    access: Arc<dyn ConfigAccess>,
    platform: Arc<dyn Platform>,
    windows: Windows,
    roots: Roots,
    /// Memory of virtual functions, by their physical one. Locked while addresses are given away.
    reserved: Mutex<Vec<(PciAddress, Range<u64>)>>,
}

impl PciRoot {
    /// The segment that `access` reaches. Registers without an address get one from `windows`.
    #[must_use]
    pub fn new(
        access: Arc<dyn ConfigAccess>,
        platform: Arc<dyn Platform>,
        windows: Windows,
    ) -> Self {
        Self {
            access,
            platform,
            windows,
            roots: Roots::First,
            reserved: Mutex::default(),
        }
    }

    /// The segment may have root buses beside the first, to which no bridge leads. Each bus number that no bridge
    /// claims is asked for them, which takes 32 reads.
    #[must_use]
    pub fn with_other_roots(mut self) -> Self {
        self.roots = Roots::Any;
        self
    }

    /// Finds every function, gives addresses to registers that have none, and puts the functions
    /// on the bus, where drivers may claim them at once. Returns how many there are.
    ///
    /// A function's node hangs below that of its bridge, or below `root`. The segment lives on as long as one of
    /// its functions, so that more can be found later.
    pub async fn enumerate(self, bus: &Arc<PciBus>, root: &Arc<Node>) -> usize {
        let mut functions = scan(&self.access, &self.access.buses(), self.roots);
        assign(&mut functions, &self.windows, None, iter::empty());
        Arc::new(self)
            .register(bus, root, Vec::new(), functions)
            .await
    }

    /// As [`enumerate`](Self::enumerate), for the functions behind a port where there were none before. They get
    /// addresses in the port's windows; if these do not do, the port gets another one.
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
            for mut function in scan(&self.access, &buses, Roots::First) {
                function.bridge = function.bridge.map_or(Some(port), |at| Some(first + at));
                functions.push(function);
            }
            let taken: Vec<_> = taken(&reserved, &functions).collect();
            assign(&mut functions, &self.windows, Some(port), taken.into_iter());
        }
        (known, functions)
    }

    /// The devices of the segment, and their functions.
    fn known(self: &Arc<Self>, bus: &PciBus) -> (Vec<Arc<PciDevice>>, Vec<Function>) {
        let mut known = bus.devices();
        known.retain(|device| Arc::ptr_eq(device.root(), self));
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
        let mut devices = known;
        for function in functions.into_iter().skip(first) {
            let parent = function
                .bridge
                .map_or(root, |bridge| devices[bridge].node());
            let node = Node::child(parent, &format!("pci{}", function.config.address()));
            devices.push(Arc::new(PciDevice::new(node, Arc::clone(self), function)));
        }
        for device in &devices[first..] {
            if let Err(error) = bus.add_device(Arc::clone(device)).await {
                log::error!("pci {}: {error}", device.address());
            } else if bus.driver_of(device).is_none() {
                log::debug!("pci {}: no driver ({})", device.address(), device.alias());
            }
        }
        devices.len() - first
    }

    /// Finds places for the memory of `count` virtual functions of `physical`, and keeps them until they are
    /// [released](Self::release). Whether there are any.
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
        let windows = &self.windows;
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

    /// Gives back what is [reserved](Self::reserve) for the virtual functions of `physical`.
    pub(super) fn release(&self, physical: &PciDevice) {
        let address = physical.address();
        self.reserved.lock().retain(|(other, _)| *other != address);
    }

    pub(super) fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    pub(super) fn access(&self) -> &Arc<dyn ConfigAccess> {
        &self.access
    }
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

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = self.access.segment();
        f.debug_struct("PciRoot")
            .field("segment", &segment)
            .finish_non_exhaustive()
    }
}
