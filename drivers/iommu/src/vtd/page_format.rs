//! Entries of second-stage page tables (VT-d 4.1, 9.8).

use vdpa::iotlb::Permission;
use virtq::DmaAddr;

use crate::page_table::Format;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// The entry maps a page, above level 1.
const PAGE_SIZE: u64 = 1 << 7;
/// The device's accesses look into caches, whatever it wants. In legacy mode.
const SNOOP: u64 = 1 << 11;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The format of one unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecondStage {
    pub(super) largest_page: u32,
    pub(super) force_snooping: bool,
}

impl Format for SecondStage {
    fn largest_page(&self) -> u32 {
        self.largest_page
    }

    fn page(&self, addr: DmaAddr, permission: Permission, level: u32) -> u64 {
        let mut entry = addr.0;
        if permission.contains(Permission::READ) {
            entry |= READ;
        }
        if permission.contains(Permission::WRITE) {
            entry |= WRITE;
        }
        if level > 1 {
            entry |= PAGE_SIZE;
        }
        if self.force_snooping {
            entry |= SNOOP;
        }
        entry
    }

    fn table(&self, addr: DmaAddr, _level: u32) -> u64 {
        addr.0 | READ | WRITE
    }

    fn read_page(&self, entry: u64, _level: u32) -> (DmaAddr, Permission) {
        let mut permission = Permission::empty();
        permission.set(Permission::READ, entry & READ != 0);
        permission.set(Permission::WRITE, entry & WRITE != 0);
        (DmaAddr(entry & ADDRESS), permission)
    }
}
