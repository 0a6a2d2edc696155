//! PCI-to-PCI bridges: the buses behind one, and the address windows that it lets through.
//!
//! Source: PCI-to-PCI Bridge 1.2, 3.2.5.

use core::ops::Range;

use super::access::ConfigSpace;

/// Granularity of a memory window.
pub(super) const WINDOW: u64 = 1 << 20;

const BUSES: u16 = 0x18;
const IO_BASE: u16 = 0x1c;
const MEMORY: u16 = 0x20;
const PREFETCHABLE: u16 = 0x24;
const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
const IO_UPPER: u16 = 0x30;
/// A base above its limit: the window lets nothing through.
const CLOSED: u32 = 0x0000_fff0;

/// The bus numbers of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BusNumbers {
    /// The bus that the bridge is on.
    pub(super) primary: u8,
    /// The bus right behind it.
    pub(super) secondary: u8,
    /// The highest bus behind it.
    pub(super) subordinate: u8,
}

impl BusNumbers {
    /// Behind the bridge is nothing.
    pub(super) const NONE: Self = Self {
        primary: 0,
        secondary: 0,
        subordinate: 0,
    };

    pub(super) fn read(config: &ConfigSpace) -> Self {
        let [primary, secondary, subordinate, _] = config.read32(BUSES).to_le_bytes();
        Self {
            primary,
            secondary,
            subordinate,
        }
    }

    pub(super) fn write(self, config: &ConfigSpace) {
        let [.., latency] = config.read32(BUSES).to_le_bytes();
        let bytes = [self.primary, self.secondary, self.subordinate, latency];
        config.write32(BUSES, u32::from_le_bytes(bytes));
    }
}

/// The memory below 4 GiB that the bridge lets through.
pub(super) fn memory_window(config: &ConfigSpace) -> Option<Range<u64>> {
    let word = config.read32(MEMORY);
    window(
        u64::from(word & 0xfff0) << 16,
        u64::from(word & 0xfff0_0000),
        WINDOW,
    )
}

/// The prefetchable memory that the bridge lets through.
pub(super) fn prefetchable_window(config: &ConfigSpace) -> Option<Range<u64>> {
    let word = config.read32(PREFETCHABLE);
    let mut base = u64::from(word & 0xfff0) << 16;
    let mut limit = u64::from(word & 0xfff0_0000);
    if word & 0xf == 1 {
        base |= u64::from(config.read32(PREFETCHABLE_BASE_UPPER)) << 32;
        limit |= u64::from(config.read32(PREFETCHABLE_LIMIT_UPPER)) << 32;
    }
    window(base, limit, WINDOW)
}

/// The I/O ports that the bridge lets through.
pub(super) fn io_window(config: &ConfigSpace) -> Option<Range<u64>> {
    const GRANULE: u64 = 1 << 12;
    let word = config.read32(IO_BASE);
    let mut base = u64::from(word & 0xf0) << 8;
    let mut limit = u64::from(word & 0xf000);
    if word & 0xf == 1 {
        let upper = config.read32(IO_UPPER);
        base |= u64::from(upper & 0xffff) << 16;
        limit |= u64::from(upper & 0xffff_0000);
    }
    window(base, limit, GRANULE)
}

/// A limit names the last granule. A window at address zero is one that nobody has set.
fn window(base: u64, limit: u64, granule: u64) -> Option<Range<u64>> {
    let end = limit.checked_add(granule)?;
    (base != 0 && base < end).then_some(base..end)
}

/// Lets the memory of `range`, which must be aligned to [`WINDOW`], and no other through.
pub(super) fn set_memory_window(config: &ConfigSpace, range: Option<&Range<u64>>) {
    config.write32(PREFETCHABLE, CLOSED);
    config.write32(PREFETCHABLE_BASE_UPPER, 0);
    config.write32(PREFETCHABLE_LIMIT_UPPER, 0);
    let word = range.and_then(|range| {
        let base = u32::try_from(range.start).ok()?;
        let last = u32::try_from(range.end - 1).ok()?;
        Some((last & 0xfff0_0000) | ((base & 0xfff0_0000) >> 16))
    });
    config.write32(MEMORY, word.unwrap_or(CLOSED));
}
