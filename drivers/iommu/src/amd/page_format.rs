//! The page tables of the host (AMD 48882, 2.2.3), with pages of the default sizes.

use vdpa::iotlb::Permission;
use virtq::DmaAddr;

use crate::page_table::Format;

const PRESENT: u64 = 1 << 0;
const NEXT_LEVEL_SHIFT: u32 = 9;
/// Bits 51:12.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// FC: the device's accesses are coherent, whatever it says of them.
const FORCE_COHERENT: u64 = 1 << 60;
/// IR.
pub(super) const READ: u64 = 1 << 61;
/// IW.
pub(super) const WRITE: u64 = 1 << 62;

/// Entries whose next level is 0 map a page of their level's size: 4 KiB, 2 MiB or 1 GiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostFormat;

impl Format for HostFormat {
    fn largest_page(&self) -> u32 {
        3
    }

    fn page(&self, addr: DmaAddr, permission: Permission, _level: u32) -> u64 {
        let mut entry = addr.0 & ADDRESS | PRESENT | FORCE_COHERENT;
        if permission.contains(Permission::READ) {
            entry |= READ;
        }
        if permission.contains(Permission::WRITE) {
            entry |= WRITE;
        }
        entry
    }

    fn table(&self, addr: DmaAddr, level: u32) -> u64 {
        walk(addr, level - 1) | PRESENT
    }

    fn read_page(&self, entry: u64, _level: u32) -> (DmaAddr, Permission) {
        let mut permission = Permission::empty();
        permission.set(Permission::READ, entry & READ != 0);
        permission.set(Permission::WRITE, entry & WRITE != 0);
        (DmaAddr(entry & ADDRESS), permission)
    }
}

/// What leads to a table of a level and permits everything that is permitted there.
pub(super) fn walk(addr: DmaAddr, level: u32) -> u64 {
    addr.0 & ADDRESS | u64::from(level) << NEXT_LEVEL_SHIFT | READ | WRITE
}
