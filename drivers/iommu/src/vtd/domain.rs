//! The address space of an isolation unit.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use vdpa::dma::{IovaSpace, IsolationUnit};
use vdpa::iotlb::IovaRange;
use vdpa::platform::{DomainChange, DomainError, IommuDomain};

use crate::MESSAGE_WINDOW;
use crate::changes::{is_same_kind, unmap_outside};
use crate::page_table::TableError;
use crate::page_table::edit::{Edit, Stale};

use super::queue::Invalidation;
use super::registers::Timeout;
use super::unit::{Known, Space, Unit};

#[derive(Debug)]
pub(super) struct Domain {
    unit: Arc<Unit>,
    devices: Vec<u16>,
    space: Arc<Mutex<Space>>,
    id: u16,
    reserved: Vec<IovaRange>,
    /// Where something can be mapped.
    usable: IovaSpace,
    entered: AtomicBool,
}

impl Domain {
    /// An empty domain for devices that are behind the unit.
    pub(super) fn new(unit: &Arc<Unit>, isolated: &Arc<IsolationUnit>) -> Result<Self, TableError> {
        let devices = unit.devices(isolated);
        let firmware = unit.firmware_ranges(isolated);
        let (first, last) = MESSAGE_WINDOW;
        let mut reserved = firmware.clone();
        reserved.extend(IovaRange::from_bounds(first, last));
        let usable = IovaSpace::new(&[all_of(unit)], &reserved).ok_or(TableError::OutOfRange)?;
        let mut state = unit.state.lock();
        for device in &devices {
            unit.make_home(&mut state, *device, &firmware)?;
        }
        let space = unit.new_space(&mut state, &firmware)?;
        drop(state);
        let id = space.domain;
        unit.mapped
            .fetch_add(space.pages.mapped(), Ordering::Relaxed);
        let space = Arc::new(Mutex::new(space));
        let known = devices.iter().map(|device| {
            let known = Known {
                unit: Arc::downgrade(isolated),
                space: Arc::downgrade(&space),
            };
            (*device, known)
        });
        unit.known.lock().extend(known);
        Ok(Self {
            unit: Arc::clone(unit),
            devices,
            space,
            id,
            reserved,
            usable,
            entered: AtomicBool::new(false),
        })
    }

    /// Makes changes of one kind.
    fn make(&self, space: &mut Space, changes: &[DomainChange]) -> Result<Edit, DomainError> {
        match space.pages.apply(changes) {
            Ok(edit) => self.show(space, edit),
            Err((error, stale)) => {
                self.discard(stale);
                Err(error.into())
            }
        }
    }

    /// Lets the unit see changes. If it does not confirm that something was taken away, they are
    /// undone.
    fn show(&self, space: &mut Space, edit: Edit) -> Result<Edit, DomainError> {
        let mut ranges = edit.removed().to_vec();
        if self.unit.capabilities.remembers_absence() {
            ranges.extend(edit.added());
        }
        match self.forget(&ranges) {
            // Memory that the unit can reach by now is not taken back without confirmation.
            Err(Timeout) if !edit.removed().is_empty() || edit.added().is_empty() => {
                self.discard(space.pages.undo(edit));
                Err(DomainError::Timeout)
            }
            _ => Ok(edit),
        }
    }

    fn undo(&self, space: &mut Space, edits: Vec<Edit>) {
        for edit in edits.into_iter().rev() {
            self.discard(space.pages.undo(edit));
        }
    }

    /// Frees tables once the unit has forgotten them; else they stay for ever.
    fn discard(&self, stale: Stale) {
        let Stale { ranges, tables } = stale;
        if self.forget(&ranges).is_err() {
            mem::forget(tables);
        }
    }

    fn forget(&self, ranges: &[IovaRange]) -> Result<(), Timeout> {
        let list = if ranges.is_empty() {
            Vec::new()
        } else {
            Invalidation::of_ranges(self.id, ranges, self.unit.capabilities)
        };
        self.unit.forget(&mut self.unit.state.lock(), &list)
    }

    /// The changes, without what firmware uses.
    fn without_reserved(&self, changes: &[DomainChange]) -> Result<Vec<DomainChange>, DomainError> {
        let mut list = Vec::with_capacity(changes.len());
        for change in changes {
            match *change {
                DomainChange::Map { range, .. } if !self.usable.contains(range) => {
                    return Err(DomainError::OutOfResources);
                }
                DomainChange::Map { .. } => list.push(*change),
                DomainChange::Unmap(range) => list.extend(unmap_outside(range, &self.reserved)),
            }
        }
        Ok(list)
    }
}

// SAFETY: the devices' context entries lead to the page table from `enter` until the domain is
// dropped, what was unmapped is forgotten by the unit before `change` returns, and the tables stay
// as long as the unit may use them.
unsafe impl IommuDomain for Domain {
    fn iova_ranges(&self) -> Vec<IovaRange> {
        [all_of(&self.unit)].into()
    }

    fn reserved(&self) -> Vec<IovaRange> {
        self.reserved.clone()
    }

    fn enter(&self) -> Result<(), DomainError> {
        let space = self.space.lock();
        let result = self.unit.enter(&self.devices, &space);
        // After a timeout, too, the unit may have seen the tables.
        if result != Err(DomainError::OutOfResources) {
            self.entered.store(true, Ordering::Release);
        }
        result
    }

    fn change(&self, changes: &[DomainChange]) -> Result<(), DomainError> {
        let changes = self.without_reserved(changes)?;
        let mut space = self.space.lock();
        if self.unit.is_broken() {
            return Err(DomainError::Timeout);
        }
        let before = space.pages.mapped();
        let mut edits = Vec::new();
        // What is taken away is confirmed before other memory is reached in its place: after a
        // timeout, nothing has been reached that was not before.
        for run in changes.chunk_by(is_same_kind) {
            match self.make(&mut space, run) {
                Ok(edit) => edits.push(edit),
                Err(error) => {
                    self.undo(&mut space, edits);
                    return Err(error);
                }
            }
        }
        for edit in edits {
            space.pages.commit(edit);
        }
        let difference = space.pages.mapped().wrapping_sub(before);
        self.unit.mapped.fetch_add(difference, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mapped = self.space.lock().pages.mapped();
        self.unit.mapped.fetch_sub(mapped, Ordering::Relaxed);
        if *self.entered.get_mut() && self.unit.leave(&self.devices, self.id).is_err() {
            // The unit may still walk the tables.
            mem::forget(Arc::clone(&self.space));
            return;
        }
        self.unit.free(self.id);
    }
}

/// Every address that the unit translates.
fn all_of(unit: &Unit) -> IovaRange {
    let last = u64::MAX >> (64 - unit.levels.bits);
    IovaRange::from_bounds(0, last).expect("in order")
}
