//! Taking mappings away.

use vdpa::iotlb::IovaRange;

use super::edit::Edit;
use super::{
    ENTRIES, Format, PageTable, ROOT, TableError, TableId, bounds, index, is_whole_pages, span,
};

impl<F: Format> PageTable<F> {
    pub(super) fn unmap(&mut self, range: IovaRange, edit: &mut Edit) -> Result<(), TableError> {
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
}
