//! What a unit can do: its capability registers (VT-d 4.1, 11.4.2 and 11.4.3).

use super::registers::{Register, Registers};

/// The tables between a device and its page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Root and context entries (9.1, 9.3).
    Legacy,
    /// These, and those of PASIDs (9.2, 9.4 to 9.6).
    Scalable,
}

/// The capability registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    base: u64,
    extended: u64,
}

/// The levels of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    /// What context entries say (9.3).
    pub(super) address_width: u64,
    pub(super) count: u32,
    /// Of the addresses that are translated.
    pub(super) bits: u32,
}

/// Where faults are recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultRecords {
    pub(super) offset: u64,
    pub(super) count: u64,
}

impl Capabilities {
    pub(super) fn read(registers: &Registers) -> Self {
        Self {
            base: registers.read64(Register::Capability),
            extended: registers.read64(Register::ExtendedCapability),
        }
    }

    /// How many domain ids there are.
    pub(super) fn domains(self) -> u32 {
        let bits = 4 + 2 * field(self.base, 0, 3) as u32;
        1 << bits.min(16)
    }

    /// Whether what is written to tables waits in a buffer.
    pub(super) fn buffers_writes(self) -> bool {
        bit(self.base, 4)
    }

    /// Whether it has ranges of protected memory.
    pub(super) fn protects_ranges(self) -> bool {
        bit(self.base, 5) || bit(self.base, 6)
    }

    /// Whether it remembers that an entry was not present.
    pub(super) fn remembers_absence(self) -> bool {
        bit(self.base, 7)
    }

    /// The smallest number of levels for all addresses of its devices, or else as many as it has.
    pub(super) fn levels(self) -> Option<Levels> {
        let most_bits = field(self.base, 16, 6) as u32 + 1;
        let offered = || (1..=3_u32).filter(|width| bit(self.base, 8 + width));
        let enough = offered().find(|width| 30 + 9 * width >= most_bits);
        let width = enough.or_else(|| offered().next_back())?;
        Some(Levels {
            address_width: width.into(),
            count: width + 2,
            bits: most_bits.min(30 + 9 * width),
        })
    }

    /// The highest level of a page table that can map pages.
    pub(super) fn largest_page(self) -> u32 {
        match field(self.base, 34, 2) {
            0 | 2 => 1,
            1 => 2,
            _ => 3,
        }
    }

    pub(super) fn fault_records(self) -> FaultRecords {
        FaultRecords {
            offset: field(self.base, 24, 10) * 16,
            count: field(self.base, 40, 8) + 1,
        }
    }

    /// The binary logarithm of the number of pages that one invalidation can name, if it can name
    /// pages.
    pub(super) fn most_pages(self) -> Option<u32> {
        bit(self.base, 39).then(|| field(self.base, 48, 6) as u32)
    }

    pub(super) fn drains_writes(self) -> bool {
        bit(self.base, 54)
    }

    pub(super) fn drains_reads(self) -> bool {
        bit(self.base, 55)
    }

    pub(super) fn queues_invalidations(self) -> bool {
        bit(self.extended, 1)
    }

    pub(super) fn remaps_interrupts(self) -> bool {
        bit(self.extended, 3)
    }

    /// Whether interrupts can be remapped to any id of a local APIC.
    pub(super) fn names_x2apic(self) -> bool {
        bit(self.extended, 4)
    }

    /// Whether it can make accesses of devices look into caches that do not want to.
    pub(super) fn forces_snooping(self) -> bool {
        bit(self.extended, 7)
    }

    /// Scalable mode is used where second-stage tables can be: these serve both modes.
    pub(super) fn mode(self) -> Mode {
        if bit(self.extended, 43) && bit(self.extended, 46) {
            Mode::Scalable
        } else {
            Mode::Legacy
        }
    }

    /// Whether it looks into caches when it reads tables, interrupts' among them.
    pub(super) fn snoops(self) -> bool {
        bit(self.extended, 0)
    }

    /// The same for what scalable mode adds.
    pub(super) fn snoops_scalable(self) -> bool {
        bit(self.extended, 48)
    }
}

fn bit(register: u64, at: u32) -> bool {
    field(register, at, 1) != 0
}

fn field(register: u64, at: u32, bits: u32) -> u64 {
    (register >> at) & ((1 << bits) - 1)
}
