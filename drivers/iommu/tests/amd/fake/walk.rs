//! Requests of devices (AMD 48882, 2.2).

use vdpa::iotlb::Permission;
use vdpa::platform::InterruptMessage;

use super::caches::CachedPage;
use super::{DEVICE_TABLE, FakeAmdVi, GA_EN, IOMMU_EN, State, XT_EN};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// The request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl FakeAmdVi {
    /// A request with this requester id: where it goes.
    pub fn access(&self, device: u16, addr: u64, access: Permission) -> Result<u64, Refused> {
        let mut state = self.lock();
        let result = self.translate(&mut state, device, addr, access);
        if let Err(flags) = result {
            let write = u64::from(access.contains(Permission::WRITE)) << 53;
            self.log(
                &mut state,
                [2 << 60 | u64::from(device) | write | flags, addr],
            );
        }
        self.finish(state);
        result.map_err(|_| Refused)
    }

    /// Lets those access memory that never rest.
    pub(super) fn let_restless_access(&self, state: &mut State) {
        for (device, addr) in state.restless.clone() {
            if let Ok(addr) = self.translate(state, device, addr, Permission::READ) {
                state.reached.insert((device, addr));
            }
        }
    }

    /// What an interrupt message of the requester raises: vector and processor.
    pub fn interrupt(
        &self,
        device: u16,
        message: InterruptMessage,
    ) -> Result<InterruptMessage, Refused> {
        let mut state = self.lock();
        let result = self.remap(&mut state, device, message);
        if result.is_err() {
            let data = message.address | u64::from(message.data);
            self.log(&mut state, [2 << 60 | u64::from(device) | 1 << 51, data]);
        }
        self.finish(state);
        result
    }

    fn device_entry(&self, state: &mut State, device: u16) -> Option<[u64; 4]> {
        if let Some(entry) = state.caches.devices.get(&device) {
            return Some(*entry);
        }
        let base = state.register(DEVICE_TABLE);
        let size = ((base & 0x1ff) + 1) * 4096;
        let offset = u64::from(device) * 32;
        if offset >= size {
            return None;
        }
        let at = (base & ADDRESS) + offset;
        let entry = [0, 8, 16, 24].map(|word| self.read_word(state, at + word, "a device entry"));
        state.caches.devices.insert(device, entry);
        Some(entry)
    }

    /// The flags of the event, if the request is refused.
    fn translate(
        &self,
        state: &mut State,
        device: u16,
        addr: u64,
        access: Permission,
    ) -> Result<u64, u64> {
        if !state.control(IOMMU_EN) {
            return Ok(addr);
        }
        let entry = self.device_entry(state, device).ok_or(0_u64)?;
        let [first, second, ..] = entry;
        if first & 1 == 0 {
            return Ok(addr);
        }
        let mut wanted = 0;
        wanted |= if access.contains(Permission::READ) {
            READ
        } else {
            0
        };
        wanted |= if access.contains(Permission::WRITE) {
            WRITE
        } else {
            0
        };
        let levels = (first >> 9 & 7) as u32;
        let not_permitted = 1 << 52 | 1 << 54;
        if first & 0b10 == 0 || first & wanted != wanted {
            return Err(not_permitted);
        }
        if levels == 0 {
            return Ok(addr);
        }
        let domain = second as u16;
        let page = match state.caches.page(domain, addr) {
            Some(page) => page,
            None => self.walk(state, domain, first & ADDRESS, levels, addr),
        };
        if page.entry & 1 == 0 {
            return Err(0);
        }
        if page.entry & wanted != wanted {
            return Err(not_permitted);
        }
        let below = (1 << page.shift) - 1;
        Ok(page.entry & ADDRESS & !below | addr & below)
    }

    fn walk(
        &self,
        state: &mut State,
        domain: u16,
        root: u64,
        levels: u32,
        addr: u64,
    ) -> CachedPage {
        let span = 12 + 9 * levels;
        let mut page = CachedPage {
            entry: 0,
            shift: span.min(63),
        };
        if addr >> span == 0 {
            page = self.walk_tables(state, domain, root, levels, addr);
        }
        if page.entry & 1 != 0 || self.model.np_cache {
            let first = addr >> page.shift << page.shift;
            state.caches.pages.insert((domain, first), page);
        }
        page
    }

    fn walk_tables(
        &self,
        state: &mut State,
        domain: u16,
        root: u64,
        levels: u32,
        addr: u64,
    ) -> CachedPage {
        let mut table = root;
        for level in (1..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let first = addr >> shift << shift;
            let key = (domain, level - 1, first);
            let cached = state.caches.directories.get(&key).copied();
            let entry = cached.unwrap_or_else(|| {
                let at = table + (addr >> shift & 0x1ff) * 8;
                self.read_word(state, at, "a page table")
            });
            let next = (entry >> 9 & 7) as u32;
            if entry & 1 == 0 || next == 0 {
                return CachedPage { entry, shift };
            }
            if next != level - 1 || entry & (READ | WRITE) != READ | WRITE {
                state.violation(format!("entry {entry:#x} at level {level}"));
            }
            state.caches.directories.insert(key, entry);
            table = entry & ADDRESS;
        }
        state.violation("a table at level 0");
        CachedPage {
            entry: 0,
            shift: 12,
        }
    }

    fn remap(
        &self,
        state: &mut State,
        device: u16,
        message: InterruptMessage,
    ) -> Result<InterruptMessage, Refused> {
        if !state.control(IOMMU_EN) {
            return Ok(message);
        }
        let entry = self.device_entry(state, device).ok_or(Refused)?;
        let third = entry[2];
        if entry[0] & 1 == 0 || third & 1 == 0 {
            return Ok(message);
        }
        let index = message.data & 0x7ff;
        if third >> 60 & 0b11 != 0b10 || index >> (third >> 1 & 0xf) != 0 {
            return Err(Refused);
        }
        let key = (device, index);
        let remapped = match state.caches.interrupts.get(&key) {
            Some(entry) => *entry,
            None => {
                let table = third & 0x000f_ffff_ffff_ffc0;
                let entry = self.interrupt_entry(state, table, index.into());
                state.caches.interrupts.insert(key, entry);
                entry
            }
        };
        let [lower, upper] = remapped;
        let modes = 0b1111_1100;
        if lower & 1 == 0 || lower & modes != 0 {
            return Err(Refused);
        }
        let (vector, destination) = if state.control(GA_EN) {
            let lower_part = lower >> 8 & 0xff_ffff;
            let destination = lower_part | upper >> 56 << 24;
            let named = if state.control(XT_EN) { u64::MAX } else { 0xff };
            (upper & 0xff, destination & named)
        } else {
            (lower >> 16 & 0xff, lower >> 8 & 0xff)
        };
        Ok(InterruptMessage {
            address: destination,
            data: vector as u32,
        })
    }

    fn interrupt_entry(&self, state: &mut State, table: u64, index: u64) -> [u64; 2] {
        let what = "an interrupt table";
        if state.control(GA_EN) {
            let at = table + index * 16;
            [0, 8].map(|word| self.read_word(state, at + word, what))
        } else {
            let word = self.read_word(state, table + index / 2 * 8, what);
            [word >> (index % 2 * 32) & 0xffff_ffff, 0]
        }
    }
}
