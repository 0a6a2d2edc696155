//! Making mappings: tables first, so that what fails for want of memory has mapped nothing meanwhile.

use vdpa::iotlb::{IovaRange, Permission};
use virtq::DmaAddr;

use super::edit::Edit;
use super::{
    ENTRIES, Format, PAGE, PHYSICAL_BITS, PageTable, ROOT, Table, TableError, TableId, bounds,
    index, is_whole_pages, span,
};

/// The part of a mapping that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Tables,
    Pages,
}

/// What is mapped at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) range: IovaRange,
    pub(super) permission: Permission,
    pub(super) addr: DmaAddr,
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

impl<F: Format> PageTable<F> {
    pub(super) fn map(&mut self, run: Run, pass: Pass, edit: &mut Edit) -> Result<(), TableError> {
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
}
