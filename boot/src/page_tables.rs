//! The page tables that the processor enters long mode with. The entry code fills them: as
//! constants they would be a fortieth of the program.
//!
//! They map the first 4 GiB at their physical addresses, everything writable and executable, with
//! 2 MiB pages: pages of 1 GiB fault on some hosts that emulate a processor without them. The
//! kernel replaces the tables as soon as it can. Intel SDM vol. 3, 4.5.

use core::sync::atomic::AtomicU64;

/// How much memory the boot page tables map, from address 0, in bytes.
pub const IDENTITY_MAPPED: u64 = 4 << 30;

/// The flags of an entry that names a table: present, writable, accessed, dirty.
pub const TABLE: u32 = 0b10_0011;
/// The flags of an entry that maps a page of 2 MiB.
pub const LARGE_PAGE: u32 = 0b1110_0011;
/// The size of such a page in bytes.
pub const LARGE_PAGE_SIZE: u32 = 2 << 20;

const ENTRIES: usize = 512;

/// `N` pages of entries.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct PageTables<const N: usize>([[AtomicU64; ENTRIES]; N]);

impl<const N: usize> PageTables<N> {
    const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; ENTRIES] }; N])
    }
}

/// The root table, for the register CR3.
pub static LEVEL_4: PageTables<1> = PageTables::new();
/// The table of the tables.
pub static LEVEL_3: PageTables<1> = PageTables::new();
/// A table for each GiB.
pub static LEVEL_2: PageTables<4> = PageTables::new();
