//! Remapping of interrupts (VT-d 4.1, 5 and 9.9).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use spin::Mutex;
use vdpa::platform::InterruptMessage;
use virtq::DmaError;

use crate::hardware_table::{HardwareTable, TableSource};
use crate::tables::ScopeKind;
use crate::{Interrupt, InterruptSource, MESSAGE_WINDOW, RemapError, RemappedInterrupt};

use super::queue::Invalidation;
use super::registers::Timeout;
use super::unit::Unit;

const ENTRIES: usize = 1024;
const ENTRY_SIZE: usize = 16;
/// Ids of local APICs have 32 bits.
const EXTENDED: u64 = 1 << 11;
const PRESENT: u64 = 1 << 0;
const LEVEL: u64 = 1 << 4;
/// In the upper half of an entry: the source is compared with the requester id (9.9).
const VERIFY_SOURCE: u64 = 1 << 18;
/// The id's function number is not.
const ANY_FUNCTION: u64 = 3 << 16;
/// The source's bus is compared with a range of buses.
const VERIFY_BUS: u64 = 2 << 18;

/// The remapping table of a unit.
#[derive(Debug)]
pub(super) struct Remapping {
    entries: Mutex<Entries>,
    destinations: Destinations,
    root: u64,
}

#[derive(Debug)]
struct Entries {
    table: HardwareTable,
    used: Vec<bool>,
}

/// How the unit names processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destinations {
    EightBits,
    ThirtyTwoBits,
}

impl Remapping {
    pub(super) fn new(source: &TableSource, destinations: Destinations) -> Result<Self, DmaError> {
        let table = source.allocate(ENTRIES * ENTRY_SIZE)?;
        let extended = match destinations {
            Destinations::EightBits => 0,
            Destinations::ThirtyTwoBits => EXTENDED,
        };
        // The size is two to the power of the field plus one (11.4.29).
        let size = u64::from(ENTRIES.trailing_zeros()) - 1;
        Ok(Self {
            root: table.addr().0 | extended | size,
            entries: Mutex::new(Entries {
                table,
                used: vec![false; ENTRIES],
            }),
            destinations,
        })
    }

    /// What the register of the table's address says.
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    pub(super) fn in_use(&self) -> usize {
        let entries = self.entries.lock();
        entries.used.iter().filter(|used| **used).count()
    }

    /// The lower half of an entry: fixed delivery to one processor.
    fn target(&self, interrupt: Interrupt) -> Result<u64, RemapError> {
        let destination = match self.destinations {
            Destinations::ThirtyTwoBits => interrupt.destination,
            Destinations::EightBits if interrupt.destination < 0xff => interrupt.destination << 8,
            Destinations::EightBits => return Err(RemapError::Destination),
        };
        let trigger = if interrupt.level { LEVEL } else { 0 };
        let vector = u64::from(interrupt.vector) << 16;
        Ok(u64::from(destination) << 32 | vector | trigger | PRESENT)
    }
}

impl Unit {
    /// Whether the unit knows who the I/O APIC is.
    pub(super) fn io_apic(&self, id: u8) -> Option<u16> {
        let scopes = self.description.scopes.iter();
        scopes
            .filter(|scope| scope.kind == ScopeKind::IoApic && scope.enumeration_id == id)
            .find_map(|scope| scope.requester_id())
    }

    /// Lets a source raise an interrupt. `None`, if the unit does not remap.
    pub(super) fn remap(
        self: &Arc<Self>,
        source: InterruptSource<'_>,
        interrupt: Interrupt,
    ) -> Option<Result<Box<dyn RemappedInterrupt>, RemapError>> {
        let remapping = self.interrupts.as_ref()?;
        let senders = match source {
            InterruptSource::Unit(unit) => self.devices(unit),
            InterruptSource::IoApic(id) => self.io_apic(id).into_iter().collect(),
        };
        let verified = verify(&senders)?;
        Some(self.add_entry(remapping, verified, interrupt))
    }

    fn add_entry(
        self: &Arc<Self>,
        remapping: &Remapping,
        verified: u64,
        interrupt: Interrupt,
    ) -> Result<Box<dyn RemappedInterrupt>, RemapError> {
        let target = remapping.target(interrupt)?;
        if self.is_broken() {
            return Err(RemapError::Timeout);
        }
        let mut entries = remapping.entries.lock();
        let free = entries.used.iter().position(|used| !used);
        let index = free.ok_or(RemapError::NoEntry)?;
        if let Some(used) = entries.used.get_mut(index) {
            *used = true;
        }
        entries.table.set(index * 2 + 1, verified);
        entries.table.set(index * 2, target);
        drop(entries);
        // If the unit does not see it, dropping it takes it away again.
        let entry = Box::new(Entry {
            unit: Arc::clone(self),
            index: index as u16,
            vector: interrupt.vector,
        });
        let absent = Invalidation::Interrupt { index: entry.index };
        let list = self.capabilities.remembers_absence().then_some(absent);
        self.forget(&mut self.state.lock(), list.as_slice())
            .map_err(|Timeout| RemapError::Timeout)?;
        Ok(entry)
    }

    /// Takes an entry away. Unless the unit confirms it, no other interrupt gets it.
    fn remove_entry(&self, index: u16) {
        let Some(remapping) = &self.interrupts else {
            return;
        };
        let place = usize::from(index);
        let mut entries = remapping.entries.lock();
        entries.table.set(place * 2, 0);
        entries.table.set(place * 2 + 1, 0);
        drop(entries);
        let list = [Invalidation::Interrupt { index }];
        if self.forget(&mut self.state.lock(), &list).is_ok()
            && let Some(used) = remapping.entries.lock().used.get_mut(place)
        {
            *used = false;
        }
    }
}

/// The upper half of an entry, which says who may use it (5.1.4): one requester, or the functions
/// of one device, or else those of some buses.
fn verify(senders: &[u16]) -> Option<u64> {
    let (first, last) = (*senders.iter().min()?, *senders.iter().max()?);
    Some(if first == last {
        VERIFY_SOURCE | u64::from(first)
    } else if first >> 3 == last >> 3 {
        VERIFY_SOURCE | ANY_FUNCTION | u64::from(first)
    } else {
        VERIFY_BUS | u64::from(first & 0xff00) | u64::from(last >> 8)
    })
}

/// An entry of the table, until it is dropped.
#[derive(Debug)]
struct Entry {
    unit: Arc<Unit>,
    index: u16,
    vector: u8,
}

impl RemappedInterrupt for Entry {
    fn message(&self) -> InterruptMessage {
        // The remappable format, without a sub-handle (5.1.2.2).
        let index = u64::from(self.index);
        InterruptMessage {
            address: MESSAGE_WINDOW.0 | (index & 0x7fff) << 5 | 1 << 4 | (index >> 15) << 2,
            data: 0,
        }
    }

    fn redirection(&self) -> u64 {
        // The remappable format (5.1.5.1). The vector ends a level-triggered interrupt.
        let index = u64::from(self.index);
        (index & 0x7fff) << 49 | 1 << 48 | (index >> 15) << 11 | u64::from(self.vector)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.unit.remove_entry(self.index);
    }
}
