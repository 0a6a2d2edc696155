//! One IOMMU: what all its domains and interrupts share.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Mutex;
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::IovaRange;
use vdpa::platform::DomainError;

use crate::MESSAGE_WINDOW;
use crate::hardware_table::TableSource;
use crate::page_table::{PageTable, TableError};
use crate::tables::Ivhd;

use super::command::{Command, CommandBuffer, NoAnswer};
use super::device_table::{DeviceTable, Remapping, Translation};
use super::event::{Event, EventCounts, EventLog};
use super::firmware::{Firmware, Region, identity};
use super::interrupt::{EntryFormat, InterruptTables};
use super::page_format::HostFormat;
use super::registers::Registers;

/// The first id that a domain can have: 0 is nobody's, and 1 of what is blocked.
const FIRST_DOMAIN: u16 = 2;
/// QEMU takes this bit of a domain's id for a reserved one, and refuses the device table entry
/// (`AMDVI_DTE_MIDDLE_QUAD_RESERVED`, up to 10.0).
const UNUSABLE_IN_QEMU: u16 = 1 << 8;

/// Where the interrupt controllers are (AMD 48882, 2.1.2), and what HyperTransport keeps for
/// itself.
const RESERVED: [(u64, u64); 2] = [MESSAGE_WINDOW, (0xfd_0000_0000, 0xff_ffff_ffff)];

/// An IOMMU that is on, or about to be.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) registers: Registers,
    pub(super) description: Ivhd,
    pub(super) traits: Traits,
    pub(super) source: TableSource,
    pub(super) firmware: Firmware,
    pub(super) devices: Mutex<Devices>,
    pub(super) commands: Mutex<CommandBuffer>,
    pub(super) log: Mutex<EventLog>,
    pub(super) events: EventCounts,
    pub(super) interrupts: Mutex<InterruptTables>,
    pub(super) domain_ids: Mutex<BTreeSet<u16>>,
    /// Who is told of faults.
    pub(super) known: Mutex<BTreeMap<u16, Weak<IsolationUnit>>>,
    /// It has not done what it was told: nothing that it may remember is given to others.
    pub(super) broken: AtomicBool,
    pub(super) mapped: AtomicU64,
}

/// What it can do, as far as it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// How many bits of an address it translates.
    pub(super) address_bits: u32,
    /// NpCache: it remembers that nothing was mapped.
    pub(super) remembers_absence: bool,
    pub(super) remapping: Remapping,
    pub(super) entries: EntryFormat,
}

impl Traits {
    /// The number of levels that page tables have. More than four nobody needs, and not every
    /// IOMMU has; nor does QEMU keep translations of longer addresses apart.
    pub(super) const fn levels(self) -> u32 {
        if self.address_bits <= 39 { 3 } else { 4 }
    }
}

/// The device table, and who is in which domain.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) table: DeviceTable,
    /// The domain of each device that is in one.
    pub(super) owners: BTreeMap<u16, u16>,
    /// Where the requests of other devices go that firmware uses.
    pub(super) homes: Homes,
}

/// Domains of what firmware uses, whether or not somebody drives the device.
#[derive(Debug, Default)]
pub(super) struct Homes {
    translations: BTreeMap<u16, Translation>,
    tables: Vec<PageTable<HostFormat>>,
}

impl Homes {
    fn of(&self, device: u16) -> Translation {
        let home = self.translations.get(&device).copied();
        home.unwrap_or(Translation::Blocked)
    }

    /// How many such domains there are.
    pub(super) fn count(&self) -> usize {
        self.tables.len()
    }
}

impl Unit {
    pub(super) fn page_table(
        &self,
        regions: &[Region],
    ) -> Result<PageTable<HostFormat>, TableError> {
        let Traits { address_bits, .. } = self.traits;
        let levels = self.traits.levels();
        let mut table = PageTable::new(&self.source, HostFormat, levels, address_bits)?;
        // Nobody has seen a table that was not finished.
        let edit = table
            .apply(&identity(regions))
            .map_err(|(error, _)| error)?;
        table.commit(edit);
        Ok(table)
    }

    /// The addresses that it translates, without the first page: no device is given address zero.
    pub(super) fn addresses(&self) -> IovaRange {
        let last = (1 << self.traits.address_bits) - 1;
        IovaRange::from_bounds(0x1000, last).expect("in order")
    }

    /// What no device may use.
    pub(super) fn reserved(&self) -> impl Iterator<Item = IovaRange> {
        RESERVED
            .into_iter()
            .filter_map(|(first, last)| IovaRange::from_bounds(first, last).ok())
    }

    /// The ids of the unit's requests: those of its functions, and those that the platform gives
    /// them instead.
    pub(super) fn device_ids(&self, unit: &IsolationUnit) -> Vec<u16> {
        let segment = u32::from(self.description.segment);
        let ids = unit.requester_ids().iter();
        let own = ids.filter(|id| *id >> 16 == segment).map(|id| *id as u16);
        let ids: BTreeSet<u16> = own.flat_map(|id| [id, self.alias(id)]).collect();
        ids.into_iter().collect()
    }

    /// The id that the requests of a device carry.
    pub(super) fn alias(&self, device: u16) -> u16 {
        let entry = self.description.device(device);
        entry.and_then(|entry| entry.alias).unwrap_or(device)
    }

    pub(super) fn take_domain_id(&self) -> Option<u16> {
        let mut used = self.domain_ids.lock();
        let mut usable = (FIRST_DOMAIN..=u16::MAX).filter(|id| id & UNUSABLE_IN_QEMU == 0);
        let id = usable.find(|id| !used.contains(id))?;
        used.insert(id);
        Some(id)
    }

    pub(super) fn give_domain_id_back(&self, id: u16) {
        self.domain_ids.lock().remove(&id);
    }

    pub(super) fn count_mapped(&self, before: u64, after: u64) {
        self.mapped.fetch_add(after, Ordering::Relaxed);
        self.mapped.fetch_sub(before, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn set_broken(&self) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            log::error!("{}: it executes no commands any more", self.name);
        }
    }

    /// Lets the IOMMU forget something. Once it has not done so, it is not asked again.
    pub(super) fn run(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), NoAnswer> {
        let mut buffer = self.commands.lock();
        if self.is_broken() {
            return Err(NoAnswer);
        }
        let result = buffer.run(&self.registers, &*self.platform, commands);
        if result.is_err() {
            self.set_broken();
        }
        result
    }

    /// Sends what firmware uses where it is.
    pub(super) fn make_homes(&self) -> Result<(), TableError> {
        let mut made: BTreeMap<Vec<Region>, Translation> = BTreeMap::new();
        let mut devices = self.devices.lock();
        let devices = &mut *devices;
        for (device, regions) in self.firmware.devices() {
            if identity(&regions).is_empty() {
                continue;
            }
            let home = match made.get(&regions) {
                Some(home) => *home,
                None => {
                    let table = self.page_table(&regions)?;
                    let home = Translation::Domain {
                        id: self.take_domain_id().ok_or(TableError::OutOfMemory)?,
                        root: table.root(),
                        levels: self.traits.levels(),
                    };
                    devices.homes.tables.push(table);
                    made.insert(regions, home);
                    home
                }
            };
            devices.table.set_domain(device, home);
            devices.table.set_root(device, home);
            devices.homes.translations.insert(device, home);
        }
        Ok(())
    }

    /// Puts devices into a domain.
    pub(super) fn enter(
        &self,
        devices: &[u16],
        domain: u16,
        translation: Translation,
    ) -> Result<(), DomainError> {
        let mut state = self.devices.lock();
        if devices.iter().any(|id| state.owners.contains_key(id)) {
            return Err(DomainError::OutOfResources);
        }
        let moved = self.redirect(&mut state, devices, None, |_| translation);
        if moved.is_err() {
            // What was there before is there again as soon as the IOMMU looks.
            for device in devices {
                let home = state.homes.of(*device);
                state.table.set_root(*device, Translation::Blocked);
                state.table.set_domain(*device, home);
                state.table.set_root(*device, home);
            }
            return Err(DomainError::Timeout);
        }
        state.owners.extend(devices.iter().map(|id| (*id, domain)));
        Ok(())
    }

    /// Takes devices out of their domain.
    pub(super) fn leave(&self, devices: &[u16], domain: u16) -> Result<(), NoAnswer> {
        let mut state = self.devices.lock();
        let homes: BTreeMap<u16, Translation> = devices
            .iter()
            .map(|id| (*id, state.homes.of(*id)))
            .collect();
        self.redirect(&mut state, devices, Some(domain), |device| {
            homes.get(&device).copied().unwrap_or(Translation::Blocked)
        })?;
        for device in devices {
            state.owners.remove(device);
        }
        Ok(())
    }

    /// Sends the requests of devices elsewhere, so that the IOMMU never sees the page table of one
    /// domain with the id of another (AMD 48882, 2.2.2.2), and remembers nothing of the old one.
    fn redirect(
        &self,
        state: &mut Devices,
        devices: &[u16],
        old: Option<u16>,
        new: impl Fn(u16) -> Translation,
    ) -> Result<(), NoAnswer> {
        let entries = || devices.iter().map(|device| Command::Device(*device));
        let pages = |domain| Command::Pages(domain, IovaRange::ALL);
        for device in devices {
            state.table.set_root(*device, Translation::Blocked);
        }
        self.run(entries().chain(old.map(pages)))?;
        for device in devices {
            state.table.set_domain(*device, new(*device));
        }
        self.run(entries())?;
        for device in devices {
            state.table.set_root(*device, new(*device));
        }
        // It may have remembered that the new domain permits nothing.
        let domains: BTreeSet<u16> = devices.iter().map(|id| new(*id).domain()).collect();
        self.run(entries().chain(domains.into_iter().map(pages)))
    }

    /// Tells those whom it concerns what is in the log.
    pub(super) fn read_events(&self) {
        let mut log = self.log.lock();
        log.drain(&self.registers, &*self.platform, &self.events, |event| {
            self.take_event(event);
        });
    }

    fn take_event(&self, event: Event) {
        let Event {
            kind, device, addr, ..
        } = event;
        let count = self.events.add(kind);
        if event.stops_commands() {
            self.set_broken();
        }
        let Some(fault) = event.fault() else {
            if count.is_power_of_two() {
                log::error!("{}: {kind} {count}, at {addr:#x}", self.name);
            }
            return;
        };
        let unit = self.known.lock().get(&device).and_then(Weak::upgrade);
        if let Some(unit) = unit {
            unit.report_fault(fault);
        } else if self.events.add_stranger().is_power_of_two() {
            let (bus, slot, function) = (device >> 8, device >> 3 & 0x1f, device & 7);
            let segment = self.description.segment;
            log::warn!(
                "{}: {kind} of {segment:04x}:{bus:02x}:{slot:02x}.{function}: {fault}",
                self.name
            );
        }
    }
}
