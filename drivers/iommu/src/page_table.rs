//! Page tables that an IOMMU walks: of pages of 4 KiB, 2 MiB and 1 GiB, in tables of 512 entries.
//!
//! What an entry looks like is the [`Format`]'s. Nothing is freed here that the IOMMU may still
//! hold: changes are given back as values, to be dropped once it has been told to forget.

pub(crate) mod edit;
mod map;
#[cfg(test)]
mod tests;
mod unmap;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;

use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::DomainError;
use virtq::{DmaAddr, DmaError};

use crate::hardware_table::{HardwareTable, TableSource};

/// The smallest page, and the size of a table.
pub(crate) const PAGE: u64 = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 12;
const INDEX_BITS: u32 = 9;
const ENTRIES: usize = 1 << INDEX_BITS;
/// No IOMMU knows more bits of a physical address.
const PHYSICAL_BITS: u32 = 52;

/// What the entries of a page table look like. One that is zero leads nowhere.
///
/// Levels are counted from the table of the smallest pages, which is at level 1.
pub(crate) trait Format: Debug + Send + Sync {
    /// The highest level whose entries may map pages: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    fn largest_page(&self) -> u32;

    /// An entry of a table at `level` that maps a page.
    fn page(&self, addr: DmaAddr, permission: Permission, level: u32) -> u64;

    /// An entry of a table at `level` that leads to a table of the level below.
    fn table(&self, addr: DmaAddr, level: u32) -> u64;

    /// Where an entry that maps a page leads, and what it permits.
    fn read_page(&self, entry: u64, level: u32) -> (DmaAddr, Permission);
}

/// Why a page table is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    /// Something does not consist of whole pages.
    #[error("not whole pages of the IOMMU")]
    Misaligned,
    /// The table does not reach as far, or the IOMMU cannot address the memory.
    #[error("the IOMMU does not translate these addresses")]
    OutOfRange,
    /// Something is mapped there.
    #[error("something is mapped there")]
    Mapped,
    /// There is no memory for tables.
    #[error("no memory for page tables")]
    OutOfMemory,
}

impl From<TableError> for DomainError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Misaligned => Self::Misaligned,
            TableError::OutOfRange | TableError::Mapped | TableError::OutOfMemory => {
                Self::OutOfResources
            }
        }
    }
}

impl From<DmaError> for TableError {
    fn from(_: DmaError) -> Self {
        Self::OutOfMemory
    }
}

/// A page table.
#[derive(Debug)]
pub(crate) struct PageTable<F> {
    format: F,
    source: TableSource,
    levels: u32,
    last: u64,
    /// By [`TableId`]. The root is the first, and never goes.
    tables: Vec<Option<Table>>,
    free: Vec<TableId>,
    mapped: u64,
}

/// A place among the tables.
type TableId = u32;

const ROOT: TableId = 0;

#[derive(Debug)]
struct Table {
    memory: HardwareTable,
    /// Those of the level below; [`ROOT`] stands for none. Not at level 1.
    children: Option<Box<[TableId; ENTRIES]>>,
    /// How many entries are not zero.
    used: usize,
}

impl<F: Format> PageTable<F> {
    /// An empty table of so many levels, for addresses of so many bits.
    ///
    /// # Errors
    /// [`TableError::OutOfMemory`].
    pub(crate) fn new(
        source: &TableSource,
        format: F,
        levels: u32,
        address_bits: u32,
    ) -> Result<Self, TableError> {
        let bits = address_bits.min(PAGE_BITS + INDEX_BITS * levels).min(64);
        let root = Table::new(source, levels)?;
        Ok(Self {
            format,
            source: source.clone(),
            levels,
            last: u64::MAX >> (64 - bits),
            tables: [Some(root)].into(),
            free: Vec::new(),
            mapped: 0,
        })
    }

    /// Where the walk begins.
    pub(crate) fn root(&self) -> DmaAddr {
        let root = self.tables.first().and_then(Option::as_ref);
        root.expect("it never goes").memory.addr()
    }

    /// How many bytes are mapped.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Where an address leads, and what is permitted there.
    pub(crate) fn translate(&self, iova: u64) -> Option<(DmaAddr, Permission)> {
        if iova > self.last {
            return None;
        }
        let mut id = ROOT;
        for level in (1..=self.levels).rev() {
            let table = self.table(id)?;
            let index = index(iova, level);
            match table.child(index) {
                Some(child) => id = child,
                None => {
                    let entry = table.memory.get(index);
                    let page = (entry != 0).then(|| self.format.read_page(entry, level))?;
                    let (addr, permission) = page;
                    return Some((DmaAddr(addr.0 + (iova & (span(level) - 1))), permission));
                }
            }
        }
        None
    }

    fn table(&self, id: TableId) -> Option<&Table> {
        self.tables.get(id as usize)?.as_ref()
    }

    fn table_mut(&mut self, id: TableId) -> &mut Table {
        let table = self.tables.get_mut(id as usize).and_then(Option::as_mut);
        table.expect("a table that is linked is there")
    }
}

impl Table {
    fn new(source: &TableSource, level: u32) -> Result<Self, TableError> {
        Ok(Self {
            memory: source.allocate(ENTRIES * 8)?,
            children: (level > 1).then(|| Box::new([ROOT; ENTRIES])),
            used: 0,
        })
    }

    fn child(&self, index: usize) -> Option<TableId> {
        let child = self.children.as_ref()?.get(index);
        child.copied().filter(|child| *child != ROOT)
    }

    fn set_child(&mut self, index: usize, child: TableId) {
        let place = self.children.as_mut().and_then(|ids| ids.get_mut(index));
        if let Some(place) = place {
            *place = child;
        }
    }

    fn set(&mut self, index: usize, entry: u64) {
        self.fill(index, 1, |_| entry);
    }

    fn fill(&mut self, first: usize, count: usize, entry: impl Fn(usize) -> u64) {
        let before = self.count_used(first, count);
        self.memory.fill(first, count, entry);
        self.used = self.used - before + self.count_used(first, count);
    }

    fn count_used(&self, first: usize, count: usize) -> usize {
        let used = |index: &usize| self.memory.get(*index) != 0;
        (first..first + count).filter(used).count()
    }
}

/// How many addresses an entry of a table at `level` stands for.
fn span(level: u32) -> u64 {
    1 << (PAGE_BITS + INDEX_BITS * (level - 1))
}

/// The entry of a table at `level` that an address belongs to.
fn index(iova: u64, level: u32) -> usize {
    let index = iova >> (PAGE_BITS + INDEX_BITS * (level - 1));
    (index as usize) & (ENTRIES - 1)
}

/// The addresses of an entry.
fn bounds(iova: u64, level: u32) -> IovaRange {
    let first = iova & !(span(level) - 1);
    IovaRange::from_bounds(first, first | (span(level) - 1)).expect("in order")
}

fn is_whole_pages(range: IovaRange) -> bool {
    range.first().is_multiple_of(PAGE) && range.last() % PAGE == PAGE - 1
}
