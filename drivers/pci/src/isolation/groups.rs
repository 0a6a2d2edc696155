//! Which functions an IOMMU can tell apart, and keep apart: isolation units.
//!
//! A function shares its unit with whatever sends in its name, and with whatever it reaches without
//! passing the root complex. These are all functions behind a root port that has no access control
//! services (ACS), behind a switch with a downstream port that has none, those of a device with a
//! function that has none, and everything behind a bridge to conventional PCI.
//!
//! A port has a unit of its own: nothing sends requests in its name, and it sends none but
//! interrupts. A virtual function is taken to reach others through the port in front of its card
//! alone (PCI Express Base 6.0, 6.12.1.2 demands ACS otherwise).
//!
//! Source: PCI Express Base 6.0, 6.12 and 7.7.11 (ACS), 7.5.3.2 (kinds of functions); PCI Express
//! to PCI/PCI-X Bridge 1.0, 2.3 (requester ids).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::iter;

use pci_types::{HeaderType, PciAddress};
use vdpa::Node;
use vdpa::dma::IsolationUnit;

use crate::access::ConfigSpace;
use crate::bridge::BusNumbers;
use crate::capability::{self, PCI_EXPRESS};
use crate::device::{PciBus, PciDevice};
use crate::header;
use crate::scan::Function;
use crate::segment::Segment;
use crate::slot::Slot;
use crate::sriov_capability::SrIovCapability;

use super::requester_id;

/// The extended capability, and its registers.
const ACS: u16 = 0x0d;
const ACS_CAPABILITY: u16 = 0x04;
const ACS_CONTROL: u16 = 0x06;
/// Source validation, and redirection of requests, of completions, and of what comes from below.
/// What a function cannot switch it does not need.
const ACS_NEEDED: u16 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;

/// The register with the kind of a function, in its capability.
const EXPRESS_FLAGS: u16 = 0x02;

/// More ids than this are looked through for equal ones: a segment has half as many.
const MANY: usize = 1 << 17;

/// Functions that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// One function alone.
    Function(u32),
    /// What is behind a bridge, and a bridge to conventional PCI itself.
    Bridge(u32),
    /// The functions of a device, and what is behind them.
    Device(u32),
}

/// How a function passes on requests, and what it lets reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Passing {
    /// It has no part in those of others.
    #[default]
    None,
    /// A root port or the upstream port of a switch: it passes on what it gets.
    Port,
    /// A downstream port of a switch, which does the same.
    Downstream,
    /// A bridge that sends in its own name.
    Own,
    /// A bridge that sends in the name of function 0 of the bus behind it.
    Secondary,
}

impl Passing {
    fn is_port(self) -> bool {
        matches!(self, Self::Port | Self::Downstream)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    passing: Passing,
    /// It needs access control services, and has none.
    open: bool,
}

impl Traits {
    /// Reads them, and switches on what the function has of access control.
    fn read(function: &Function) -> Self {
        let bridge = function.kind == HeaderType::PciPciBridge;
        let multi = is_multi(&function.config);
        if !bridge && !multi {
            return Self::default();
        }
        let express = capability::find(&function.config, PCI_EXPRESS);
        let kind = express.map(|at| function.config.read16(at + EXPRESS_FLAGS) >> 4 & 0xf);
        let passing = match kind {
            _ if !bridge => Passing::None,
            Some(4 | 5) => Passing::Port,
            Some(6) => Passing::Downstream,
            Some(7) => Passing::Secondary,
            _ => Passing::Own,
        };
        let open = match kind {
            // Conventional PCI, bridges to it and from it, and event collectors have none.
            None | Some(7 | 8 | 10) => true,
            // Root ports and a switch's downstream ports.
            Some(4 | 6) => !switch_on(&function.config),
            _ => multi && !switch_on(&function.config),
        };
        Self { passing, open }
    }
}

/// Switches access control on. Whether the function has what is needed.
fn switch_on(config: &ConfigSpace) -> bool {
    let Some(at) = capability::find_extended(config, ACS) else {
        return false;
    };
    let needed = config.read16(at + ACS_CAPABILITY) & ACS_NEEDED;
    let control = config.read16(at + ACS_CONTROL);
    if control & needed == needed {
        return true;
    }
    config.set16(at + ACS_CONTROL, control | needed);
    config.read16(at + ACS_CONTROL) & needed == needed
}

fn is_multi(config: &ConfigSpace) -> bool {
    config.address().function() != 0 || header::is_multi_function(config)
}

/// The functions of a segment, with what each lets through.
struct Topology<'a> {
    functions: &'a [Function],
    traits: Vec<Traits>,
}

impl<'a> Topology<'a> {
    fn of(functions: &'a [Function]) -> Self {
        let mut topology = Self {
            traits: functions.iter().map(Traits::read).collect(),
            functions,
        };
        topology.open_switches();
        topology.open_devices();
        topology
    }

    /// What comes from one downstream port without access control reaches what is behind the
    /// others.
    fn open_switches(&mut self) {
        for (index, function) in self.functions.iter().enumerate() {
            let Traits { passing, open } = self.traits[index];
            if let (Passing::Downstream, true, Some(upstream)) = (passing, open, function.bridge) {
                self.traits[upstream].open = true;
            }
        }
    }

    /// What one function without access control sends reaches the others of the device.
    fn open_devices(&mut self) {
        let multi = |index: &usize| is_multi(&self.functions[*index].config);
        let multi: Vec<usize> = (0..self.functions.len()).filter(multi).collect();
        let device = |index: usize| self.id(index) & !7;
        let open = multi.iter().filter(|&&index| self.traits[index].open);
        let mut open: Vec<u32> = open.map(|&index| device(index)).collect();
        open.sort_unstable();
        for index in multi {
            if open.binary_search(&(self.id(index) & !7)).is_ok() {
                self.traits[index].open = true;
            }
        }
    }

    /// The bridges in front of a function, the nearest first.
    fn bridges(&self, index: usize) -> impl Iterator<Item = usize> {
        let above = |at: &usize| self.functions.get(*at)?.bridge;
        iter::successors(above(&index), above)
    }

    fn id(&self, index: usize) -> u32 {
        requester_id(self.functions[index].config.address())
    }

    /// The bridge nearest to the root behind which nothing is kept apart, in front of a function.
    fn barrier(&self, index: usize) -> Option<usize> {
        let bridges = self.bridges(index);
        bridges.filter(|&bridge| self.traits[bridge].open).last()
    }

    fn group(&self, index: usize) -> Group {
        let Traits { passing, open } = self.traits[index];
        if passing.is_port() {
            return Group::Function(self.id(index));
        }
        match self.barrier(index) {
            Some(bridge) => self.group_behind(bridge),
            None if passing != Passing::None => self.group_behind(index),
            None if open => self.device(index),
            None => Group::Function(self.id(index)),
        }
    }

    fn group_behind(&self, bridge: usize) -> Group {
        if is_multi(&self.functions[bridge].config) {
            self.device(bridge)
        } else {
            Group::Bridge(self.id(bridge))
        }
    }

    fn device(&self, index: usize) -> Group {
        Group::Device(self.id(index) & !7)
    }

    /// The ids that a function's requests may carry, and those of what may come later.
    fn ids(&self, index: usize, ids: &mut Vec<u32>) {
        ids.push(self.id(index));
        for bridge in self.bridges(index) {
            ids.extend(match self.traits[bridge].passing {
                Passing::Own => Some(self.id(bridge)),
                Passing::Secondary => Some(self.behind(bridge)),
                Passing::None | Passing::Port | Passing::Downstream => None,
            });
        }
        if self.barrier(index).is_some()
            && let Some(card) = SrIovCapability::find(&self.functions[index].config)
        {
            let places = (0..card.total()).filter_map(|index| card.place(index));
            ids.extend(places.map(requester_id));
        }
    }

    /// All ids of a group. The first function's own is the first, and names the unit.
    fn all_ids(&self, group: Group, members: impl Iterator<Item = usize>) -> Vec<u32> {
        let mut ids = Vec::new();
        for member in members {
            self.ids(member, &mut ids);
            if ids.len() > MANY {
                // Cards can say that they have any number of virtual functions.
                tidy(&mut ids);
            }
        }
        if !matches!(group, Group::Function(_)) {
            self.later(group, &mut ids);
        }
        tidy(&mut ids);
        ids
    }

    /// The ids of cards that may come to a group which then has other functions already.
    fn later(&self, group: Group, ids: &mut Vec<u32>) {
        for (bridge, Traits { passing, open }) in self.traits.iter().enumerate() {
            let joins = || match self.barrier(bridge) {
                Some(barrier) => self.group_behind(barrier) == group,
                None => *open && self.group_behind(bridge) == group,
            };
            let alone = Group::Bridge(self.id(bridge)) == group;
            if passing.is_port()
                && !alone
                && joins()
                && Slot::of(&self.functions[bridge].config).is_some()
            {
                let first = self.behind(bridge);
                ids.extend(first..first + 8);
            }
        }
    }

    /// The first function on the bus behind a bridge.
    fn behind(&self, bridge: usize) -> u32 {
        let config = &self.functions[bridge].config;
        let bus = BusNumbers::read(config).secondary;
        requester_id(PciAddress::new(config.address().segment(), bus, 0, 0))
    }

    /// What is in front of a group: the bridges of one of its functions down to the one that the
    /// group is about.
    fn way(&self, index: usize, group: Group) -> Vec<u32> {
        let mut way: Vec<u32> = self.bridges(index).map(|bridge| self.id(bridge)).collect();
        way.reverse();
        let last = match group {
            Group::Function(_) => None,
            Group::Bridge(bridge) => way.iter().position(|id| *id == bridge).map(|at| at + 1),
            Group::Device(device) => way.iter().position(|id| id & !7 == device),
        };
        way.truncate(last.unwrap_or(way.len()));
        way
    }
}

/// The units of functions that are new.
pub(crate) struct Units {
    segment: Arc<Segment>,
    plans: Vec<Plan>,
}

#[derive(Clone)]
struct Plan {
    group: Group,
    /// Left to the first function of the group, as is the way.
    ids: Vec<u32>,
    way: Vec<u32>,
}

impl Units {
    /// Those of the functions from `first` on. All that came together are known before the first of
    /// them has a driver.
    pub(crate) fn plan(segment: &Arc<Segment>, functions: &[Function], first: usize) -> Self {
        let topology = Topology::of(functions);
        let group = |index: usize| (topology.group(index), index);
        let mut members: Vec<(Group, usize)> = (first..functions.len()).map(group).collect();
        let empty = |(group, _): &(Group, usize)| Plan {
            group: *group,
            ids: Vec::new(),
            way: Vec::new(),
        };
        let mut plans: Vec<Plan> = members.iter().map(empty).collect();
        members.sort_unstable();
        for members in members.chunk_by(|(a, _), (b, _)| a == b) {
            if let Some(&(group, index)) = members.first() {
                let plan = &mut plans[index - first];
                plan.ids = topology.all_ids(group, members.iter().map(|(_, member)| *member));
                plan.way = topology.way(index, group);
            }
        }
        Self {
            segment: Arc::clone(segment),
            plans,
        }
    }

    /// Those of virtual functions at these places.
    pub(crate) fn plan_virtual(
        bus: &PciBus,
        physical: &Arc<PciDevice>,
        places: impl Iterator<Item = PciAddress>,
    ) -> Self {
        let segment = Arc::clone(physical.segment());
        let (known, all) = segment.known(bus);
        let topology = Topology::of(&all);
        let physical = known.iter().position(|known| Arc::ptr_eq(known, physical));
        let plan = |place: PciAddress| {
            let id = requester_id(place);
            let shared = physical.filter(|&physical| topology.barrier(physical).is_some());
            let group = shared.map_or(Group::Function(id), |shared| topology.group(shared));
            let way = physical.map_or(Vec::new(), |physical| topology.way(physical, group));
            let ids = Vec::from([id]);
            Plan { group, ids, way }
        };
        let plans = places.map(plan).collect();
        Self { segment, plans }
    }

    /// The unit of the function with this index among those that are new. Those before it have
    /// theirs.
    pub(crate) fn of(&self, index: usize, node: &Arc<Node>, _: PciAddress) -> Arc<IsolationUnit> {
        self.segment.unit(&self.plans[index], node)
    }
}

impl Segment {
    /// The unit of a group, which is made if there is none. It lives as long as somebody has it.
    fn unit(&self, plan: &Plan, node: &Arc<Node>) -> Arc<IsolationUnit> {
        let Plan { group, ids, way } = plan;
        let mut units = self.units.lock();
        units.retain(|(_, unit)| unit.strong_count() > 0);
        let place = units.partition_point(|(other, _)| other < group);
        let known = units.get(place).filter(|(other, _)| other == group);
        if let Some(unit) = known.and_then(|(_, unit)| Weak::upgrade(unit)) {
            let others = unit.requester_ids().get(1..).unwrap_or_default();
            let has =
                |id: &u32| unit.requester_id() == Some(*id) || others.binary_search(id).is_ok();
            if !ids.iter().all(has) {
                log::warn!(
                    "{}: cannot be kept apart from {}, and came later: behind an IOMMU it reaches no memory",
                    node.path(),
                    unit.node().path()
                );
            }
            return unit;
        }
        let unit = IsolationUnit::of_requesters(node, ids.clone(), way.clone());
        units.insert(place, (*group, Arc::downgrade(&unit)));
        unit
    }
}

/// Orders all but the first, each once.
fn tidy(ids: &mut Vec<u32>) {
    let Some(&first) = ids.first() else {
        return;
    };
    ids.retain(|id| *id != first);
    ids.sort_unstable();
    ids.dedup();
    ids.insert(0, first);
}
