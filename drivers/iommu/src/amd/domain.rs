//! What the devices of an isolation unit reach.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

use spin::Mutex;
use vdpa::iotlb::IovaRange;
use vdpa::platform::{DomainChange, DomainError, IommuDomain};

use crate::changes::unmap_outside;
use crate::page_table::edit::Stale;
use crate::page_table::{PageTable, TableError};

use super::command::{Command, NoAnswer};
use super::device_table::Translation;
use super::page_format::HostFormat;
use super::unit::Unit;

/// From so many ranges on the IOMMU forgets the whole domain.
const RANGES: usize = 16;

/// A page table, and who is to use it.
pub(super) struct Domain {
    unit: Arc<Unit>,
    id: u16,
    /// Their own ids, and those that their requests carry.
    devices: Vec<u16>,
    /// What firmware uses, which always leads to itself where it is mapped.
    firmware: Vec<IovaRange>,
    reserved: Vec<IovaRange>,
    state: Arc<Mutex<State>>,
}

struct State {
    table: PageTable<HostFormat>,
    entered: bool,
}

impl Domain {
    /// An empty one, besides what firmware uses.
    pub(super) fn new(unit: &Arc<Unit>, devices: Vec<u16>) -> Result<Self, TableError> {
        let regions = unit.firmware.of(&devices);
        let table = unit.page_table(&regions)?;
        let id = unit.take_domain_id().ok_or(TableError::OutOfMemory)?;
        unit.count_mapped(0, table.mapped());
        let firmware: Vec<_> = regions.iter().map(|region| region.range).collect();
        Ok(Self {
            unit: Arc::clone(unit),
            id,
            devices,
            reserved: unit.reserved().chain(firmware.iter().copied()).collect(),
            firmware,
            state: Arc::new(Mutex::new(State {
                table,
                entered: false,
            })),
        })
    }

    fn everything(&self) -> Command {
        Command::Pages(self.id, IovaRange::ALL)
    }

    /// Lets the IOMMU forget what it may hold of these ranges.
    fn forget(&self, ranges: &[IovaRange]) -> Result<(), NoAnswer> {
        if ranges.len() > RANGES {
            return self.unit.run([self.everything()]);
        }
        let commands = ranges.iter().map(|range| Command::Pages(self.id, *range));
        self.unit.run(commands)
    }

    /// The changes, as far as they concern nothing that firmware uses.
    fn without_firmware(&self, changes: &[DomainChange]) -> Vec<DomainChange> {
        let mut list = Vec::with_capacity(changes.len());
        for change in changes {
            match *change {
                DomainChange::Unmap(range) => list.extend(unmap_outside(range, &self.firmware)),
                map @ DomainChange::Map { .. } => list.push(map),
            }
        }
        list
    }
}

// SAFETY: the page table holds what was mapped and what firmware uses, which is reserved; the
// device table leads there as long as the unit is in the domain; and the IOMMU has forgotten what
// was taken away before anybody is told so.
unsafe impl IommuDomain for Domain {
    fn iova_ranges(&self) -> Vec<IovaRange> {
        Vec::from([self.unit.addresses()])
    }

    fn reserved(&self) -> Vec<IovaRange> {
        self.reserved.clone()
    }

    fn enter(&self) -> Result<(), DomainError> {
        let mut state = self.state.lock();
        let translation = Translation::Domain {
            id: self.id,
            root: state.table.root(),
            levels: self.unit.traits.levels(),
        };
        self.unit.enter(&self.devices, self.id, translation)?;
        state.entered = true;
        Ok(())
    }

    fn change(&self, changes: &[DomainChange]) -> Result<(), DomainError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.entered && self.unit.is_broken() {
            return Err(DomainError::Timeout);
        }
        let before = state.table.mapped();
        let edit = if self.firmware.is_empty() {
            state.table.apply(changes)
        } else {
            state.table.apply(&self.without_firmware(changes))
        };
        let edit = match edit {
            Ok(edit) => edit,
            Err((error, stale)) => {
                let forgotten = !state.entered || self.forget(&stale.ranges).is_ok();
                give_back(stale, forgotten);
                return Err(error.into());
            }
        };
        let mut ranges = edit.removed().to_vec();
        if self.unit.traits.remembers_absence {
            ranges.extend(edit.added());
        }
        if state.entered && self.forget(&ranges).is_err() {
            give_back(state.table.undo(edit), false);
            return Err(DomainError::Timeout);
        }
        state.table.commit(edit);
        self.unit.count_mapped(before, state.table.mapped());
        Ok(())
    }
}

/// Tables that the IOMMU may still walk are not given back.
fn give_back(stale: Stale, forgotten: bool) {
    if !forgotten {
        mem::forget(stale.tables);
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let state = self.state.lock();
        self.unit.count_mapped(state.table.mapped(), 0);
        if !state.entered || self.unit.leave(&self.devices, self.id).is_ok() {
            self.unit.give_domain_id_back(self.id);
        } else {
            // The IOMMU may still walk the table: it stays, as does the id.
            mem::forget(Arc::clone(&self.state));
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("id", &self.id)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}
