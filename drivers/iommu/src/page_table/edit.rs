//! Changes of a page table that can be undone, until whoever holds the old entries has forgotten
//! them.

use alloc::vec::Vec;

use vdpa::iotlb::IovaRange;
use vdpa::platform::DomainChange;
use virtq::DmaAddr;

use crate::changes::is_same_kind;
use crate::hardware_table::HardwareTable;

use super::map::{Pass, Run};
use super::{ENTRIES, Format, PageTable, ROOT, Table, TableError, TableId, span};

/// Changes that have been made. They are [committed](PageTable::commit) once the IOMMU has
/// forgotten what was [removed](Self::removed), or else [undone](PageTable::undo).
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Edit {
    pub(super) added: Vec<IovaRange>,
    removed: Vec<IovaRange>,
    steps: Vec<Step>,
    /// What stood in the entries of [`Step::Wrote`], one step's after the other's.
    old: Vec<u64>,
    mapped_before: u64,
}

#[derive(Debug)]
enum Step {
    /// Entries of one table have been written.
    Wrote {
        table: TableId,
        first: usize,
        count: usize,
    },
    /// A table has been put in the place of an entry.
    Linked {
        parent: TableId,
        index: usize,
        old: u64,
    },
    /// A table that had become empty has been taken away.
    Unlinked {
        parent: TableId,
        index: usize,
        old: u64,
        id: TableId,
        table: Table,
    },
}

impl Edit {
    /// Where something is mapped now, for an IOMMU that remembers that nothing was.
    pub(crate) fn added(&self) -> &[IovaRange] {
        &self.added
    }

    /// Where something was mapped: whole pages, as they were.
    pub(crate) fn removed(&self) -> &[IovaRange] {
        &self.removed
    }
}

/// What the IOMMU may still hold of changes that have been undone. It must have forgotten `ranges`
/// before the tables are dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Stale {
    pub(crate) ranges: Vec<IovaRange>,
    pub(crate) tables: Vec<HardwareTable>,
}

impl<F: Format> PageTable<F> {
    /// Makes changes one after the other.
    ///
    /// # Errors
    /// [`TableError`]: all is as it was, and the IOMMU may have seen what has been undone.
    pub(crate) fn apply(&mut self, changes: &[DomainChange]) -> Result<Edit, (TableError, Stale)> {
        let mut edit = Edit {
            mapped_before: self.mapped,
            ..Edit::default()
        };
        for run in changes.chunk_by(is_same_kind) {
            // All tables come first: what fails for want of memory has mapped nothing meanwhile.
            for pass in [Pass::Tables, Pass::Pages] {
                for change in run {
                    if let Err(error) = self.make(change, pass, &mut edit) {
                        return Err((error, self.undo(edit)));
                    }
                }
            }
        }
        Ok(edit)
    }

    /// Frees the tables that changes have emptied. The IOMMU has forgotten them.
    pub(crate) fn commit(&mut self, edit: Edit) {
        let freed = edit.steps.into_iter().filter_map(|step| match step {
            Step::Unlinked { id, .. } => Some(id),
            Step::Wrote { .. } | Step::Linked { .. } => None,
        });
        self.free.extend(freed);
    }

    /// Puts everything back as it was before these changes, which are the last ones.
    pub(crate) fn undo(&mut self, edit: Edit) -> Stale {
        let Edit {
            added: mut ranges,
            removed,
            steps,
            mut old,
            mapped_before,
        } = edit;
        ranges.extend(removed);
        let mut tables = Vec::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Wrote {
                    table,
                    first,
                    count,
                } => {
                    let entries = old.split_off(old.len() - count);
                    self.table_mut(table)
                        .fill(first, count, |at| entries.get(at).copied().unwrap_or(0));
                }
                Step::Linked { parent, index, old } => {
                    let parent = self.table_mut(parent);
                    let child = parent.child(index);
                    parent.set(index, old);
                    parent.set_child(index, ROOT);
                    if let Some(child) = child
                        && let Some(place) = self.tables.get_mut(child as usize)
                        && let Some(table) = place.take()
                    {
                        self.free.push(child);
                        tables.push(table.memory);
                    }
                }
                Step::Unlinked {
                    parent,
                    index,
                    old,
                    id,
                    table,
                } => {
                    if let Some(place) = self.tables.get_mut(id as usize) {
                        *place = Some(table);
                    }
                    let parent = self.table_mut(parent);
                    parent.set_child(index, id);
                    parent.set(index, old);
                }
            }
        }
        self.mapped = mapped_before;
        Stale { ranges, tables }
    }

    fn make(
        &mut self,
        change: &DomainChange,
        pass: Pass,
        edit: &mut Edit,
    ) -> Result<(), TableError> {
        match (*change, pass) {
            (
                DomainChange::Map {
                    range,
                    permission,
                    addr,
                },
                pass,
            ) => {
                let run = Run {
                    range,
                    permission,
                    addr,
                };
                self.map(run, pass, edit)
            }
            (DomainChange::Unmap(range), Pass::Pages) => self.unmap(range, edit),
            (DomainChange::Unmap(_), Pass::Tables) => Ok(()),
        }
    }

    /// Puts a table in the place of a page, which maps the same.
    pub(super) fn split(
        &mut self,
        id: TableId,
        at: usize,
        level: u32,
        edit: &mut Edit,
    ) -> Result<TableId, TableError> {
        let entry = self.table(id).map_or(0, |table| table.memory.get(at));
        let (addr, permission) = self.format.read_page(entry, level);
        let mut table = Table::new(&self.source, level - 1)?;
        let format = &self.format;
        table.fill(0, ENTRIES, |at| {
            let addr = DmaAddr(addr.0 + span(level - 1) * at as u64);
            format.page(addr, permission, level - 1)
        });
        Ok(self.link(id, at, level, table, edit))
    }

    pub(super) fn link(
        &mut self,
        parent: TableId,
        index: usize,
        level: u32,
        table: Table,
        edit: &mut Edit,
    ) -> TableId {
        let entry = self.format.table(table.memory.addr(), level);
        let id = self.free.pop().unwrap_or_else(|| {
            self.tables.push(None);
            (self.tables.len() - 1) as TableId
        });
        if let Some(place) = self.tables.get_mut(id as usize) {
            *place = Some(table);
        }
        let place = self.table_mut(parent);
        let old = place.memory.get(index);
        place.set(index, entry);
        place.set_child(index, id);
        edit.steps.push(Step::Linked { parent, index, old });
        id
    }

    pub(super) fn unlink_if_empty(
        &mut self,
        parent: TableId,
        index: usize,
        id: TableId,
        edit: &mut Edit,
    ) {
        let child = self.tables.get_mut(id as usize);
        let Some(table) = child.and_then(|child| child.take_if(|child| child.used == 0)) else {
            return;
        };
        let place = self.table_mut(parent);
        let old = place.memory.get(index);
        place.set(index, 0);
        place.set_child(index, ROOT);
        edit.steps.push(Step::Unlinked {
            parent,
            index,
            old,
            id,
            table,
        });
    }

    pub(super) fn is_used(&self, id: TableId, at: usize) -> bool {
        self.table(id)
            .is_some_and(|table| table.memory.get(at) != 0)
    }
}

impl Edit {
    /// Remembers what entries say before they are written.
    pub(super) fn keep(&mut self, id: TableId, table: &Table, first: usize, count: usize) {
        self.old
            .extend((first..first + count).map(|at| table.memory.get(at)));
        self.steps.push(Step::Wrote {
            table: id,
            first,
            count,
        });
    }

    /// Adds to what was removed; mostly it goes on where the last has ended.
    pub(super) fn remove(&mut self, range: IovaRange) {
        if let Some(before) = self.removed.last_mut()
            && before.last().checked_add(1) == Some(range.first())
        {
            *before = IovaRange::from_bounds(before.first(), range.last()).expect("in order");
        } else if self
            .removed
            .last()
            .is_none_or(|before| !before.contains(range))
        {
            self.removed.push(range);
        }
    }
}
