//! The MCFG table: where PCI configuration space is mapped into memory (PCI Firmware 3.3, 4.1.2).

use core::ops::Range;

use heapless::Vec;

use super::tables::{HEADER, u16_at, u64_at};

/// The most regions that are taken over; a PC has one.
pub(crate) const MAX_REGIONS: usize = 4;

/// The configuration space of a range of buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigRegion {
    /// Where the configuration space of bus 0 is, or would be.
    pub(crate) base: u64,
    /// The PCI segment group.
    pub(crate) segment: u16,
    /// The first bus.
    pub(crate) first_bus: u8,
    /// The last bus.
    pub(crate) last_bus: u8,
}

impl ConfigRegion {
    /// All buses of the first segment.
    pub(crate) fn at(base: u64) -> Self {
        Self {
            base,
            segment: 0,
            first_bus: 0,
            last_bus: u8::MAX,
        }
    }

    /// The addresses that the region takes: 1 MiB for each bus. Empty, if they would wrap.
    pub(crate) fn range(&self) -> Range<u64> {
        const BUS_SIZE: u64 = 1 << 20;
        let at = |bus: u64| self.base.checked_add(bus * BUS_SIZE);
        match (at(self.first_bus.into()), at(u64::from(self.last_bus) + 1)) {
            (Some(start), Some(end)) => start..end,
            _ => 0..0,
        }
    }
}

/// The regions in the table.
pub(super) fn config_regions(table: &[u8]) -> Vec<ConfigRegion, MAX_REGIONS> {
    const RESERVED: usize = 8;
    const ENTRY: usize = 16;
    let entries = table.get(HEADER + RESERVED..).unwrap_or_default();
    entries
        .chunks_exact(ENTRY)
        .filter_map(|entry| {
            Some(ConfigRegion {
                base: u64_at(entry, 0)?,
                segment: u16_at(entry, 8)?,
                first_bus: entry[10],
                last_bus: entry[11],
            })
        })
        .filter(|region| region.base != 0 && region.first_bus <= region.last_bus)
        .take(MAX_REGIONS)
        .collect()
}
