//! What the parts of a unit's driver share, and who is in which domain.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Mutex;
use vdpa::Platform;
use vdpa::dma::{IovaSpace, IsolationUnit};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, DomainError};
use virtq::DmaAddr;

use crate::hardware_table::TableSource;
use crate::page_table::{PAGE, PageTable, TableError};
use crate::tables::{Drhd, Rmrr};

use super::capability::{Capabilities, Levels, Mode};
use super::contexts::{Context, Contexts, PasidTables};
use super::fault::FaultCounts;
use super::interrupt::Remapping;
use super::page_format::SecondStage;
use super::queue::{Invalidation, Queue};
use super::registers::{Global, Registers, Timeout};

/// One unit.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) registers: Registers,
    pub(super) capabilities: Capabilities,
    pub(super) levels: Levels,
    pub(super) description: Drhd,
    /// What firmware uses, of all units.
    pub(super) firmware: Vec<Rmrr>,
    pub(super) source: TableSource,
    pub(super) state: Mutex<State>,
    pub(super) interrupts: Option<Remapping>,
    pub(super) known: Mutex<BTreeMap<u16, Known>>,
    pub(super) faults: FaultCounts,
    pub(super) mapped: AtomicU64,
    /// It has not done what it was told, and is not told anything more.
    pub(super) broken: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) contexts: Contexts,
    pub(super) domains: DomainIds,
    /// What devices reach that are in no domain: the memory that firmware lets them use.
    homes: BTreeMap<u16, Space>,
    /// The devices that are in a domain.
    entered: BTreeSet<u16>,
}

/// A device that has been given a domain.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) unit: Weak<IsolationUnit>,
    pub(super) space: Weak<Mutex<Space>>,
}

/// The domain ids of a unit. The first is left alone: a unit that remembers what is not present
/// remembers it under this one (6.1).
#[derive(Debug)]
pub(super) struct DomainIds {
    count: u32,
    next: u32,
    free: Vec<u16>,
}

impl DomainIds {
    pub(super) const fn new(count: u32) -> Self {
        Self {
            count,
            next: 1,
            free: Vec::new(),
        }
    }

    pub(super) fn in_use(&self) -> u32 {
        self.next - 1 - self.free.len() as u32
    }

    fn take(&mut self) -> Option<u16> {
        self.free.pop().or_else(|| {
            let id = u16::try_from(self.next).ok()?;
            (self.next < self.count).then_some(())?;
            self.next += 1;
            Some(id)
        })
    }
}

/// The page table of a domain, with what leads to it.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) domain: u16,
    pub(super) pages: PageTable<SecondStage>,
    context: Context,
    /// The context leads to them.
    _pasids: Option<PasidTables>,
}

impl State {
    pub(super) fn new(queue: Queue, contexts: Contexts, capabilities: Capabilities) -> Self {
        Self {
            queue,
            contexts,
            domains: DomainIds::new(capabilities.domains()),
            homes: BTreeMap::new(),
            entered: BTreeSet::new(),
        }
    }
}

impl Unit {
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The devices of an isolation unit that are behind this one.
    pub(super) fn devices(&self, unit: &IsolationUnit) -> Vec<u16> {
        let segment = u32::from(self.description.segment);
        let ids = unit.requester_ids().iter();
        ids.filter(|id| **id >> 16 == segment)
            .map(|id| *id as u16)
            .collect()
    }

    /// Where the unit's devices find what firmware uses.
    pub(super) fn firmware_ranges(&self, unit: &IsolationUnit) -> Vec<IovaRange> {
        let ranges = self.firmware.iter().filter(|range| range.covers(unit));
        let ranges: Vec<_> = ranges.filter_map(whole_pages).collect();
        // Two may share a page.
        IovaSpace::new(&ranges, &[]).map_or_else(Vec::new, |joined| joined.ranges().to_vec())
    }

    /// An address space that leads to the memory at `firmware`, and nowhere else.
    ///
    /// # Errors
    /// [`TableError`], if there is no memory or no domain id.
    pub(super) fn new_space(
        &self,
        state: &mut State,
        firmware: &[IovaRange],
    ) -> Result<Space, TableError> {
        let domain = state.domains.take().ok_or(TableError::OutOfMemory)?;
        self.space_of(domain, firmware)
            .inspect_err(|_| state.domains.free.push(domain))
    }

    fn space_of(&self, domain: u16, firmware: &[IovaRange]) -> Result<Space, TableError> {
        let mode = self.capabilities.mode();
        let format = SecondStage {
            largest_page: self.capabilities.largest_page(),
            force_snooping: mode == Mode::Legacy && self.capabilities.forces_snooping(),
        };
        let Levels {
            address_width,
            count,
            bits,
        } = self.levels;
        let mut pages = PageTable::new(&self.source, format, count, bits)?;
        for range in firmware {
            let identity = DomainChange::Map {
                range: *range,
                permission: Permission::all(),
                addr: DmaAddr(range.first()),
            };
            let edit = pages.apply(&[identity]).map_err(|(error, _)| error)?;
            pages.commit(edit);
        }
        let root = pages.root();
        let (context, pasids) = match mode {
            Mode::Legacy => (Context::legacy(root, address_width, domain), None),
            Mode::Scalable => {
                let pasids =
                    PasidTables::new(&self.source, root, address_width, domain, self.capabilities)?;
                (Context::scalable(&pasids), Some(pasids))
            }
        };
        Ok(Space {
            domain,
            pages,
            context,
            _pasids: pasids,
        })
    }

    /// Lets a device reach what firmware uses while it is in no domain.
    pub(super) fn make_home(
        &self,
        state: &mut State,
        device: u16,
        firmware: &[IovaRange],
    ) -> Result<(), TableError> {
        if firmware.is_empty() || state.homes.contains_key(&device) {
            return Ok(());
        }
        state.contexts.prepare(device)?;
        let home = self.new_space(state, firmware)?;
        if !state.entered.contains(&device) {
            state.contexts.set(device, Some(home.context));
        }
        state.homes.insert(device, home);
        Ok(())
    }

    /// Puts devices into a domain.
    pub(super) fn enter(&self, devices: &[u16], space: &Space) -> Result<(), DomainError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if self.is_broken() {
            return Err(DomainError::Timeout);
        }
        for device in devices {
            let prepared = state.contexts.prepare(*device);
            prepared.map_err(|_| DomainError::OutOfResources)?;
        }
        self.leave_homes(state, devices)?;
        for device in devices {
            state.contexts.set(*device, Some(space.context));
            state.entered.insert(*device);
        }
        self.show_contexts(state, devices, space.domain)
    }

    /// Takes devices out of homes. Without confirmation all is as it was.
    fn leave_homes(&self, state: &mut State, devices: &[u16]) -> Result<(), DomainError> {
        let homes = devices.iter().filter_map(|device| {
            let home = state.homes.get(device)?;
            Some((*device, home.domain, home.context))
        });
        let homes: Vec<_> = homes.collect();
        let mut list = Vec::new();
        for (device, domain, _) in &homes {
            state.contexts.set(*device, None);
            list.extend(self.forgetting(&[*device], *domain));
        }
        if !list.is_empty() && self.forget(state, &list).is_err() {
            for (device, _, context) in homes {
                state.contexts.set(device, Some(context));
            }
            return Err(DomainError::Timeout);
        }
        Ok(())
    }

    /// Takes devices out of a domain. Without confirmation its tables may still be in use.
    pub(super) fn leave(&self, devices: &[u16], domain: u16) -> Result<(), Timeout> {
        let mut state = self.state.lock();
        let state = &mut *state;
        for device in devices {
            state.contexts.set(*device, None);
            state.entered.remove(device);
        }
        let list = self.forgetting(devices, domain);
        self.forget(state, &list)?;
        for device in devices {
            let Some(home) = state.homes.get(device) else {
                continue;
            };
            let domain = home.domain;
            state.contexts.set(*device, Some(home.context));
            // The home's tables stay: they need no confirmation.
            let _ = self.show_contexts(state, &[*device], domain);
        }
        Ok(())
    }

    /// Gives back a domain that the unit has forgotten, or never knew.
    pub(super) fn free(&self, domain: u16) {
        self.state.lock().domains.free.push(domain);
    }

    /// What must be forgotten of devices that are not in a domain any more (6.5.3.3).
    fn forgetting(&self, devices: &[u16], domain: u16) -> Vec<Invalidation> {
        let contexts = devices.iter().map(|device| Invalidation::Context {
            domain,
            device: *device,
        });
        let scalable = self.capabilities.mode() == Mode::Scalable;
        let pasids = scalable.then_some(Invalidation::Pasids { domain });
        contexts
            .chain(pasids)
            .chain([Invalidation::Translations { domain }])
            .collect()
    }

    /// Lets the unit see contexts where none were.
    fn show_contexts(
        &self,
        state: &mut State,
        devices: &[u16],
        domain: u16,
    ) -> Result<(), DomainError> {
        let mut list = Vec::new();
        if self.capabilities.remembers_absence() {
            // What was not present is remembered under domain 0 (6.1).
            list.extend(devices.iter().map(|device| Invalidation::Context {
                domain: 0,
                device: *device,
            }));
            list.extend(self.forgetting(&[], domain));
        }
        self.forget(state, &list)
            .map_err(|Timeout| DomainError::Timeout)
    }

    /// Lets the unit see what has been written and forget something, and waits until it has. One
    /// that does not is told nothing more.
    pub(super) fn forget(&self, state: &mut State, list: &[Invalidation]) -> Result<(), Timeout> {
        if self.is_broken() {
            return Err(Timeout);
        }
        let platform = &*self.platform;
        let mut result = Ok(());
        if self.capabilities.buffers_writes() {
            result = self.registers.turn_on(Global::WRITE_BUFFER_FLUSH, platform);
        }
        if result.is_ok() && !list.is_empty() {
            result = state.queue.run(list, &self.registers, platform);
        }
        if result.is_err() {
            self.broken.store(true, Ordering::Release);
            log::error!(
                "{} does not answer: what its devices reach is not changed any more",
                self.name
            );
        }
        result
    }
}

/// The pages that the memory lies in.
fn whole_pages(range: &Rmrr) -> Option<IovaRange> {
    IovaRange::from_bounds(range.base & !(PAGE - 1), range.limit | (PAGE - 1)).ok()
}
