//! What the IOMMU remembers.

use std::collections::BTreeMap;

/// A page, or that there is none: the entry that says so, and the bits of the address below it.
#[derive(Clone, Copy, Debug)]
pub struct CachedPage {
    pub entry: u64,
    pub shift: u32,
}

/// All of it stays until it is told to forget it.
#[derive(Default)]
pub struct Caches {
    pub devices: BTreeMap<u16, [u64; 4]>,
    /// By domain and first address.
    pub pages: BTreeMap<(u16, u64), CachedPage>,
    /// Entries that lead to tables: by domain, level and first address.
    pub directories: BTreeMap<(u16, u32, u64), u64>,
    pub interrupts: BTreeMap<(u16, u32), [u64; 2]>,
}

impl Caches {
    /// Entries of another time, which let everybody reach everything.
    pub fn remember_firmware(&mut self) {
        self.devices.extend((0..=u16::MAX).map(|id| (id, [0; 4])));
    }

    pub fn page(&self, domain: u16, addr: u64) -> Option<CachedPage> {
        let below = self.pages.range((domain, 0)..=(domain, addr));
        below
            .rev()
            .map(|((_, first), page)| (*first, *page))
            .find(|(first, page)| first >> page.shift == addr >> page.shift)
            .map(|(_, page)| page)
    }

    /// `INVALIDATE_IOMMU_PAGES`, from the first address to the last.
    pub fn forget_pages(&mut self, domain: u16, first: u64, last: u64, directories: bool) {
        self.pages.retain(|(owner, at), page| {
            let end = at | ((1 << page.shift) - 1);
            *owner != domain || *at > last || end < first
        });
        if directories {
            self.directories.retain(|(owner, level, at), _| {
                let end = at | ((1_u64 << (12 + 9 * level)) - 1).min(u64::MAX >> 1);
                *owner != domain || *at > last || end < first
            });
        }
    }
}
