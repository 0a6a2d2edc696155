//! The page tables that the processor enters long mode with.
//!
//! They map the first 4 GiB at their physical addresses, everything writable and executable, with
//! 2 MiB pages: pages of 1 GiB fault on some hosts that emulate a processor without them. The
//! kernel replaces the tables as soon as it can. Intel SDM vol. 3, 4.5.

use core::ptr::{null, without_provenance};

/// How much memory the boot page tables map, from address 0, in bytes.
pub const IDENTITY_MAPPED: u64 = 4 << 30;

/// Present, writable, accessed, dirty.
const TABLE: usize = 0b10_0011;
/// The same for an entry that maps a page of 2 MiB.
const LARGE_PAGE: usize = 0b1110_0011;
const LARGE_PAGE_SIZE: usize = 2 << 20;
const ENTRIES: usize = 512;

/// One page of entries. They are pointers, because an address can be had in a constant as such
/// only.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct PageTable([*const u8; ENTRIES]);

// SAFETY: the entries are read by the processor's page walk alone.
unsafe impl Sync for PageTable {}

/// The root table, for the register CR3.
pub static LEVEL_4: PageTable = table(&[(&raw const LEVEL_3).cast()]);

static LEVEL_3: PageTable = table(&[
    (&raw const LEVEL_2[0]).cast(),
    (&raw const LEVEL_2[1]).cast(),
    (&raw const LEVEL_2[2]).cast(),
    (&raw const LEVEL_2[3]).cast(),
]);

static LEVEL_2: [PageTable; 4] = [
    large_pages(0),
    large_pages(1),
    large_pages(2),
    large_pages(3),
];

/// A table whose first entries name the tables `next`.
const fn table(next: &[*const u8]) -> PageTable {
    let mut entries = [null(); ENTRIES];
    let mut index = 0;
    while index < next.len() {
        entries[index] = next[index].wrapping_add(TABLE);
        index += 1;
    }
    PageTable(entries)
}

/// The table that maps the `gib`-th GiB.
const fn large_pages(gib: usize) -> PageTable {
    let mut entries = [null(); ENTRIES];
    let mut index = 0;
    while index < ENTRIES {
        let page = gib * ENTRIES + index;
        entries[index] = without_provenance(page * LARGE_PAGE_SIZE + LARGE_PAGE);
        index += 1;
    }
    PageTable(entries)
}
