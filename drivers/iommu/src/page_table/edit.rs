//! Changes of a page table that can be undone, until whoever holds the old entries has forgotten
//! them.

use alloc::vec::Vec;

use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::DomainChange;
use virtq::DmaAddr;

use crate::hardware_table::HardwareTable;

use super::{
    ENTRIES, Format, PAGE, PHYSICAL_BITS, PageTable, ROOT, Table, TableError, TableId, bounds,
    index, span,
};

/// Changes that have been made. They are [committed](PageTable::commit) once the IOMMU has
/// forgotten what was [removed](Self::removed), or else [undone](PageTable::undo).
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Edit {
    added: Vec<IovaRange>,
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

/// The part of a mapping that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Tables,
    Pages,
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

    fn map(&mut self, run: Run, pass: Pass, edit: &mut Edit) -> Result<(), TableError> {
        let Run { range, addr, .. } = run;
        if !is_whole_pages(range) || !addr.0.is_multiple_of(PAGE) {
            return Err(TableError::Misaligned);
        }
        let end = addr.0.checked_add(range.last() - range.first());
        if range.last() > self.last || end.is_none_or(|end| end >> PHYSICAL_BITS != 0) {
            return Err(TableError::OutOfRange);
        }
        // Before the tables: the IOMMU may remember those that are undone.
        if pass == Pass::Tables {
            edit.added.push(range);
        }
        self.map_in(ROOT, self.levels, run, pass, edit)
    }

    /// Maps what lies in one table.
    fn map_in(
        &mut self,
        id: TableId,
        level: u32,
        run: Run,
        pass: Pass,
        edit: &mut Edit,
    ) -> Result<(), TableError> {
        let end = run.range.last();
        let mut iova = run.range.first();
        loop {
            let at = index(iova, level);
            let child = self.table(id).and_then(|table| table.child(at));
            let pages = if child.is_some() {
                0
            } else {
                self.whole_pages(level, iova, end, run.addr_of(iova))
            };
            let last = if pages > 0 {
                let last = iova + (span(level) * pages as u64 - 1);
                self.map_pages(id, level, run.part(iova, last), pass, edit)?;
                last
            } else {
                let child = match child {
                    Some(child) => child,
                    None if self.is_used(id, at) => return Err(TableError::Mapped),
                    None => {
                        let table = Table::new(&self.source, level - 1)?;
                        self.link(id, at, level, table, edit)
                    }
                };
                let last = bounds(iova, level).last().min(end);
                self.map_in(child, level - 1, run.part(iova, last), pass, edit)?;
                last
            };
            if last == end {
                return Ok(());
            }
            iova = last + 1;
        }
    }

    /// How many entries of the table at `level` may map what lies from `iova` to `last`.
    fn whole_pages(&self, level: u32, iova: u64, last: u64, addr: DmaAddr) -> usize {
        let aligned = (iova | addr.0).is_multiple_of(span(level));
        if level > self.format.largest_page() || !aligned {
            return 0;
        }
        // Not the length, which may not fit.
        let pages =
            (last - iova) / span(level) + u64::from((last - iova) % span(level) == span(level) - 1);
        let here = ENTRIES - index(iova, level);
        // Above the smallest pages, the next entry may lead to a table.
        let most = if level == 1 { here } else { 1 };
        usize::try_from(pages).map_or(most, |pages| pages.min(most))
    }

    /// Maps whole pages of one table.
    fn map_pages(
        &mut self,
        id: TableId,
        level: u32,
        run: Run,
        pass: Pass,
        edit: &mut Edit,
    ) -> Result<(), TableError> {
        let first = index(run.range.first(), level);
        let count = index(run.range.last(), level) + 1 - first;
        if (first..first + count).any(|at| self.is_used(id, at)) {
            return Err(TableError::Mapped);
        }
        if pass == Pass::Tables {
            return Ok(());
        }
        let table = self.tables.get_mut(id as usize).and_then(Option::as_mut);
        let table = table.expect("a table that is linked is there");
        edit.keep(id, table, first, count);
        let format = &self.format;
        table.fill(first, count, |at| {
            let addr = DmaAddr(run.addr.0 + span(level) * at as u64);
            format.page(addr, run.permission, level)
        });
        self.mapped += span(level) * count as u64;
        Ok(())
    }

    fn unmap(&mut self, range: IovaRange, edit: &mut Edit) -> Result<(), TableError> {
        if !is_whole_pages(range) {
            return Err(TableError::Misaligned);
        }
        match IovaRange::from_bounds(range.first(), range.last().min(self.last)) {
            Ok(range) => self.unmap_in(ROOT, self.levels, range, edit),
            Err(_) => Ok(()),
        }
    }

    /// Unmaps what lies in one table.
    fn unmap_in(
        &mut self,
        id: TableId,
        level: u32,
        range: IovaRange,
        edit: &mut Edit,
    ) -> Result<(), TableError> {
        let mut at = index(range.first(), level);
        let end = index(range.last(), level);
        let base = bounds(range.first(), level).first() - span(level) * at as u64;
        while at <= end {
            let whole = bounds(base + span(level) * at as u64, level);
            let part = IovaRange::from_bounds(
                whole.first().max(range.first()),
                whole.last().min(range.last()),
            )
            .expect("each entry has a share");
            let child = self.table(id).and_then(|table| table.child(at));
            if let Some(child) = child {
                self.unmap_in(child, level - 1, part, edit)?;
                self.unlink_if_empty(id, at, child, edit);
                at += 1;
            } else if !self.is_used(id, at) {
                at += 1;
            } else if part == whole {
                at += self.unmap_pages(id, level, at, range.last(), whole, edit);
            } else {
                let child = self.split(id, at, level, edit)?;
                edit.remove(whole);
                self.unmap_in(child, level - 1, part, edit)?;
                self.unlink_if_empty(id, at, child, edit);
                at += 1;
            }
        }
        Ok(())
    }

    /// Clears entries from the one at `first` on that map pages, as far as all of each goes.
    fn unmap_pages(
        &mut self,
        id: TableId,
        level: u32,
        first: usize,
        last: u64,
        whole: IovaRange,
        edit: &mut Edit,
    ) -> usize {
        let most = ENTRIES - first;
        let pages = 1 + (last - whole.last()) / span(level);
        let most = usize::try_from(pages).map_or(most, |pages| pages.min(most));
        let is_page = |at: &usize| {
            let table = self.table(id);
            self.is_used(id, *at) && table.is_some_and(|table| table.child(*at).is_none())
        };
        let count = (first..first + most).take_while(is_page).count();
        let table = self.table_mut(id);
        edit.keep(id, table, first, count);
        table.fill(first, count, |_| 0);
        let bytes = span(level) * count as u64;
        self.mapped -= bytes;
        let removed = IovaRange::from_bounds(whole.first(), whole.first() + (bytes - 1));
        edit.remove(removed.expect("in order"));
        count
    }

    /// Puts a table in the place of a page, which maps the same.
    fn split(
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

    fn link(
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

    fn unlink_if_empty(&mut self, parent: TableId, index: usize, id: TableId, edit: &mut Edit) {
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

    fn is_used(&self, id: TableId, at: usize) -> bool {
        self.table(id)
            .is_some_and(|table| table.memory.get(at) != 0)
    }
}

impl Edit {
    /// Remembers what entries say before they are written.
    fn keep(&mut self, id: TableId, table: &Table, first: usize, count: usize) {
        self.old
            .extend((first..first + count).map(|at| table.memory.get(at)));
        self.steps.push(Step::Wrote {
            table: id,
            first,
            count,
        });
    }

    /// Adds to what was removed; mostly it goes on where the last has ended.
    fn remove(&mut self, range: IovaRange) {
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

/// What is mapped at once.
#[derive(Clone, Copy, Debug)]
struct Run {
    range: IovaRange,
    permission: Permission,
    addr: DmaAddr,
}

impl Run {
    /// Where an address of it leads.
    fn addr_of(&self, iova: u64) -> DmaAddr {
        DmaAddr(self.addr.0 + (iova - self.range.first()))
    }

    /// What lies from `first` to `last`.
    fn part(&self, first: u64, last: u64) -> Self {
        Self {
            range: IovaRange::from_bounds(first, last).expect("in order"),
            addr: self.addr_of(first),
            ..*self
        }
    }
}

fn is_same_kind(change: &DomainChange, next: &DomainChange) -> bool {
    matches!(change, DomainChange::Map { .. }) == matches!(next, DomainChange::Map { .. })
}

fn is_whole_pages(range: IovaRange) -> bool {
    range.first().is_multiple_of(PAGE) && range.last() % PAGE == PAGE - 1
}
