//! The device table: what becomes of the requests of each requester id (AMD 48882, 2.2.2).

use virtq::{DmaAddr, DmaError};

use crate::hardware_table::{HardwareTable, TableSource};

use super::page_format::walk;

/// Of a segment.
const REQUESTER_IDS: usize = 1 << 16;
/// Of one bus.
const BUS: usize = 1 << 8;
const WORDS: usize = 4;

// The first word.
const VALID: u64 = 1 << 0;
const TRANSLATION_VALID: u64 = 1 << 1;
// The second word.
const SYSTEM_MANAGEMENT_SHIFT: u32 = 40;
// The third word.
const INTERRUPT_MAP_VALID: u64 = 1 << 0;
/// IntTabLen: the logarithm.
const INTERRUPT_TABLE_LENGTH_SHIFT: u32 = 1;
/// IntCtl: interrupts are remapped. Zero: they are not let through.
const INTERRUPTS_REMAPPED: u64 = 0b10 << 60;
/// Bits 51:6.
const INTERRUPT_TABLE: u64 = 0x000f_ffff_ffff_ffc0;

/// The domain of what reaches nothing. Its entries say nothing of pages.
const BLOCKED: u16 = 1;

/// Whether interrupts of devices go through the IOMMU's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remapping {
    /// They do; the devices raise what they were let raise.
    On,
    /// The IOMMU lets them pass.
    Off,
}

/// Where the requests of a device are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Translation {
    /// Nowhere: it reaches nothing.
    Blocked,
    /// In a page table of so many levels.
    Domain { id: u16, root: DmaAddr, levels: u32 },
}

impl Translation {
    pub(super) const fn domain(self) -> u16 {
        match self {
            Self::Blocked => BLOCKED,
            Self::Domain { id, .. } => id,
        }
    }
}

/// Where the interrupts of a device are remapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterruptTableBase {
    pub(super) addr: DmaAddr,
    pub(super) entries_log2: u32,
}

/// The whole table.
#[derive(Debug)]
pub(super) struct DeviceTable {
    table: HardwareTable,
}

impl DeviceTable {
    /// A table up to the device `last` at least, in which nobody reaches anything. Where there are
    /// bridges there may be more of them later, so it is that of a segment: QEMU does not heed the
    /// length, and takes whatever is behind a table for entries.
    pub(super) fn new(
        source: &TableSource,
        last: u16,
        remapping: Remapping,
    ) -> Result<Self, DmaError> {
        let entries = if usize::from(last) < BUS {
            BUS
        } else {
            REQUESTER_IDS
        };
        let mut table = source.allocate(entries * WORDS * 8)?;
        let interrupts = match remapping {
            Remapping::On => INTERRUPT_MAP_VALID,
            Remapping::Off => 0,
        };
        table.fill(0, entries * WORDS, |word| match word % WORDS {
            0 => VALID | TRANSLATION_VALID,
            1 => u64::from(BLOCKED),
            2 => interrupts,
            _ => 0,
        });
        Ok(Self { table })
    }

    /// Device Table Base Address (AMD 48882, 3.4.1): with the number of pages, less one.
    pub(super) fn base(&self) -> u64 {
        let pages = self.table.len() * 8 / 4096;
        self.table.addr().0 | (pages - 1) as u64
    }

    /// What firmware wants of system management messages.
    pub(super) fn set_system_management(&mut self, device: u16, bits: u8) {
        let settings = u64::from(bits & 0b11) << SYSTEM_MANAGEMENT_SHIFT;
        let second = word(device, 1);
        self.table.set(second, self.table.get(second) | settings);
    }

    /// Names the domain of a device.
    pub(super) fn set_domain(&mut self, device: u16, translation: Translation) {
        let second = word(device, 1);
        let settings = self.table.get(second) & !u64::from(u16::MAX);
        let domain = u64::from(translation.domain());
        self.table.set(second, settings | domain);
    }

    /// Sends the requests of a device elsewhere.
    pub(super) fn set_root(&mut self, device: u16, translation: Translation) {
        let translated = match translation {
            Translation::Blocked => 0,
            Translation::Domain { root, levels, .. } => walk(root, levels),
        };
        let first = word(device, 0);
        self.table
            .set(first, translated | VALID | TRANSLATION_VALID);
    }

    /// Lets a device raise what the table has.
    pub(super) fn set_interrupts(&mut self, device: u16, table: InterruptTableBase) {
        let entry = table.addr.0 & INTERRUPT_TABLE
            | u64::from(table.entries_log2) << INTERRUPT_TABLE_LENGTH_SHIFT
            | INTERRUPTS_REMAPPED
            | INTERRUPT_MAP_VALID;
        self.table.set(word(device, 2), entry);
    }
}

fn word(device: u16, word: usize) -> usize {
    usize::from(device) * WORDS + word
}
