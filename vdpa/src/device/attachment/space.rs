//! One address space of a device as its owner sees it: what is mapped, and what the device has not
//! been told.

use alloc::vec::Vec;
use core::mem;

use crate::iotlb::{Capacity, Iotlb, IovaRange, MapError, Permission};
use crate::ops::{Backing, OpError};

use super::route::{Change, MapNotifier, Route};

/// How many mappings an address space holds. A client pays for bytes; this bounds what it takes to
/// remember them.
const MAPPINGS_MAX: usize = 1 << 17;

/// What is mapped. All changes happen completely or not at all.
pub(super) struct Space {
    table: Iotlb<Backing>,
    bytes: u64,
    batch: Option<Batch>,
}

/// Between the beginning and the end of a batch.
enum Batch {
    /// The device learns of each change.
    Told,
    /// It learns of all of them at the end. What was there before is kept, and kept alive, until
    /// then.
    Withheld { before: Iotlb<Backing>, bytes: u64 },
}

/// A mapping that was there before a change.
pub(super) struct Earlier {
    range: IovaRange,
    permission: Permission,
    backing: Backing,
}

impl Space {
    pub(super) const fn new() -> Self {
        Self {
            table: Iotlb::new(Capacity::Refuse(MAPPINGS_MAX)),
            bytes: 0,
            batch: None,
        }
    }

    pub(super) fn table(&self) -> &Iotlb<Backing> {
        &self.table
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn map(
        &mut self,
        route: &Route,
        notifier: &MapNotifier<'_>,
        range: IovaRange,
        permission: Permission,
        backing: &Backing,
    ) -> Result<(), OpError> {
        route.check(range, backing)?;
        self.table.map(range, permission, backing.clone())?;
        if let Err(error) = self.tell(route, notifier, Change::Map(range, permission, backing)) {
            self.table
                .unmap(range)
                .expect("the whole of one mapping, which needs no split");
            return Err(error);
        }
        self.bytes += bytes(range.len());
        Ok(())
    }

    /// Returns how many bytes were mapped, and adds what was there to `removed`.
    pub(super) fn unmap(
        &mut self,
        route: &Route,
        notifier: &MapNotifier<'_>,
        range: IovaRange,
        removed: &mut Vec<Earlier>,
    ) -> Result<u64, OpError> {
        let overlaps = self.table.overlaps(range);
        removed.extend(overlaps.map(|mapping| Earlier {
            range: mapping.range,
            permission: mapping.permission,
            backing: mapping.target.clone(),
        }));
        if removed.is_empty() {
            return Ok(0);
        }
        let unmapped = bytes(self.table.unmap(range).map_err(MapError::from)?);
        if let Err(error) = self.tell(route, notifier, Change::Unmap(range)) {
            self.restore(removed);
            return Err(error);
        }
        self.bytes -= unmapped;
        Ok(unmapped)
    }

    /// Undoes an `unmap`.
    fn restore(&mut self, removed: &[Earlier]) {
        for earlier in removed {
            self.table
                .unmap(earlier.range)
                .expect("what is left of one mapping, which needs no split");
            self.table
                .map(earlier.range, earlier.permission, earlier.backing.clone())
                .expect("the room that it had before");
        }
    }

    pub(super) fn begin_batch(
        &mut self,
        route: &Route,
        notifier: &MapNotifier<'_>,
    ) -> Result<(), OpError> {
        if self.batch.is_some() {
            return Err(OpError::WrongState);
        }
        self.batch = Some(if route.withholds(notifier) {
            Batch::Withheld {
                before: self.table.clone(),
                bytes: self.bytes,
            }
        } else {
            Batch::Told
        });
        Ok(())
    }

    /// Puts the table that is no longer needed into `forgotten`.
    pub(super) fn end_batch(
        &mut self,
        route: &Route,
        notifier: &MapNotifier<'_>,
        forgotten: &mut Option<Iotlb<Backing>>,
    ) -> Result<(), OpError> {
        match self.batch.take().ok_or(OpError::WrongState)? {
            Batch::Told => Ok(()),
            Batch::Withheld { before, bytes } => {
                let result = route.give(notifier, &before, &self.table);
                if result.is_ok() {
                    *forgotten = Some(before);
                } else {
                    *forgotten = Some(mem::replace(&mut self.table, before));
                    self.bytes = bytes;
                }
                result
            }
        }
    }

    /// Takes everything away, ends a batch, and puts what is no longer needed into `forgotten`.
    pub(super) fn reset(
        &mut self,
        route: &Route,
        notifier: &MapNotifier<'_>,
        forgotten: &mut Option<Self>,
    ) -> Result<(), OpError> {
        route.reset(notifier, self.told())?;
        *forgotten = Some(mem::replace(self, Self::new()));
        Ok(())
    }

    /// What whoever translates has been told of.
    pub(super) fn told(&self) -> &Iotlb<Backing> {
        match &self.batch {
            Some(Batch::Withheld { before, .. }) => before,
            Some(Batch::Told) | None => &self.table,
        }
    }

    fn tell(
        &self,
        route: &Route,
        notifier: &MapNotifier<'_>,
        change: Change<'_>,
    ) -> Result<(), OpError> {
        match self.batch {
            Some(Batch::Withheld { .. }) => Ok(()),
            Some(Batch::Told) | None => route.tell(notifier, change, &self.table),
        }
    }
}

/// Mapped bytes are those of allocations, which are far fewer than 2^64.
fn bytes(len: u128) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
