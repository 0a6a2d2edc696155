//! How requests find their way (VT-d 4.1, 3, 5 and 9).

use vdpa::iotlb::Permission;

use super::{CachedPage, Context, Fake, Reason, State};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl State {
    pub(super) fn translate(
        &mut self,
        fake: &Fake,
        source: u16,
        iova: u64,
        access: Permission,
    ) -> Result<u64, Reason> {
        let context = self.context(fake, source)?;
        if iova >> fake.config.address_bits != 0 || iova >> (12 + 9 * context.levels) != 0 {
            return Err(0x04);
        }
        let page = self.page(fake, context, iova)?;
        if !page.permission.contains(access) {
            return Err(if access == Permission::READ {
                0x06
            } else {
                0x05
            });
        }
        Ok(page.addr + (iova - page.first))
    }

    fn context(&mut self, fake: &Fake, source: u16) -> Result<Context, Reason> {
        if let Some(context) = self.caches.contexts.get(&source) {
            return Ok(*context);
        }
        if self.caches.absent_contexts.contains(&source) {
            return Err(0x02);
        }
        match self.walk_context(fake, source) {
            Ok(context) => {
                self.caches.contexts.insert(source, context);
                Ok(context)
            }
            Err(reason) => {
                if fake.config.caching {
                    self.caches.absent_contexts.insert(source);
                }
                Err(reason)
            }
        }
    }

    fn walk_context(&self, fake: &Fake, source: u16) -> Result<Context, Reason> {
        let root = self.root & ADDRESS;
        let (bus, devfn) = (u64::from(source >> 8), u64::from(source & 0xff));
        if !fake.config.scalable {
            let entry = present(fake.word(root + bus * 16), 0x01)?;
            let table = entry & ADDRESS;
            let low = present(fake.word(table + devfn * 16), 0x02)?;
            let high = fake.word(table + devfn * 16 + 8);
            assert_eq!(low & 0xffe, 0, "second-stage translation alone");
            assert_eq!(high & !0x00ff_ff07, 0, "reserved bits");
            return Ok(Context {
                domain: (high >> 8) as u16,
                root: low & ADDRESS,
                levels: levels(fake, high & 7),
            });
        }
        let entry = present(fake.word(root + bus * 16 + (devfn >> 7) * 8), 0x39)?;
        let place = (entry & ADDRESS) + (devfn & 0x7f) * 32;
        let context = present(fake.word(place), 0x41)?;
        assert_eq!(context & 0xffe, 0, "the smallest directory, and no PASIDs");
        assert_eq!(
            fake.word(place + 8),
            0,
            "requests without PASID have PASID 0"
        );
        let entry = present(fake.word(context & ADDRESS), 0x51)?;
        let place = entry & ADDRESS;
        let low = present(fake.word(place), 0x59)?;
        let high = fake.word(place + 8);
        assert_eq!(low >> 6 & 7, 2, "second-stage translation alone");
        assert_eq!(high >> 23 & 1, u64::from(fake.config.snoops));
        Ok(Context {
            domain: high as u16,
            root: low & ADDRESS,
            levels: levels(fake, low >> 2 & 7),
        })
    }

    fn page(&mut self, fake: &Fake, context: Context, iova: u64) -> Result<CachedPage, Reason> {
        let domain = context.domain;
        assert!(domain != 0 && u64::from(domain) < 1 << (4 + 2 * fake.config.domains));
        let hit = self.caches.pages.iter().find(|page| {
            page.domain == domain && page.first <= iova && iova - page.first < page.size
        });
        if let Some(page) = hit {
            return Ok(*page);
        }
        let absent = (domain, iova >> 12);
        let page = CachedPage {
            domain,
            first: iova & !0xfff,
            size: 0x1000,
            addr: 0,
            permission: Permission::empty(),
        };
        if self.caches.absent_pages.contains(&absent) {
            return Ok(page);
        }
        let Some(page) = walk_pages(fake, context, iova) else {
            if fake.config.caching {
                self.caches.absent_pages.insert(absent);
            }
            return Ok(page);
        };
        self.caches.pages.push(page);
        Ok(page)
    }

    /// Where a message of this index leads (5.1.4).
    pub(super) fn remap(&mut self, fake: &Fake, source: u16, index: u16) -> Result<u64, Reason> {
        let entry = match self.caches.interrupts.get(&index) {
            Some(entry) => *entry,
            None if self.caches.absent_interrupts.contains(&index) => return Err(0x22),
            None => {
                let size = 1_u64 << ((self.interrupt_table & 0xf) + 1);
                if u64::from(index) >= size {
                    return Err(0x21);
                }
                let at = (self.interrupt_table & ADDRESS) + u64::from(index) * 16;
                let entry = [fake.word(at), fake.word(at + 8)];
                if entry[0] & 1 == 0 {
                    if fake.config.caching {
                        self.caches.absent_interrupts.insert(index);
                    }
                    return Err(0x22);
                }
                self.caches.interrupts.insert(index, entry);
                entry
            }
        };
        let [low, high] = entry;
        let id = high as u16;
        let ignored = [0, 4, 6, 7][(high >> 16 & 3) as usize];
        let is_valid = match high >> 18 & 3 {
            1 => source & !ignored == id & !ignored,
            2 => (id >> 8..=id & 0xff).contains(&(source >> 8)),
            _ => false,
        };
        if is_valid { Ok(low) } else { Err(0x26) }
    }
}

fn present(entry: u64, otherwise: Reason) -> Result<u64, Reason> {
    if entry & 1 == 0 {
        Err(otherwise)
    } else {
        Ok(entry)
    }
}

fn levels(fake: &Fake, width: u64) -> u32 {
    assert!(
        fake.config.sagaw >> width & 1 != 0,
        "width {width} is not offered"
    );
    width as u32 + 2
}

fn walk_pages(fake: &Fake, context: Context, iova: u64) -> Option<CachedPage> {
    let mut table = context.root;
    for level in (1..=context.levels).rev() {
        let shift = 12 + 9 * (level - 1);
        let entry = fake.word(table + (iova >> shift & 0x1ff) * 8);
        if entry & 3 == 0 {
            return None;
        }
        let is_page = level == 1 || entry >> 7 & 1 != 0;
        if is_page {
            let offered = [1, fake.config.large_pages & 1, fake.config.large_pages >> 1];
            assert_ne!(offered[level as usize - 1], 0, "a page of level {level}");
            let snoop = u64::from(!fake.config.scalable);
            assert_eq!(entry >> 11 & 1, snoop, "accesses snoop");
            let size = 1 << shift;
            assert_eq!(entry & ADDRESS & (size - 1), 0, "the page is aligned");
            return Some(CachedPage {
                domain: context.domain,
                first: iova & !(size - 1),
                size,
                addr: entry & ADDRESS,
                permission: Permission::from_bits_truncate(entry as u8 & 3),
            });
        }
        assert_eq!(entry & 0xf80, 0, "reserved bits of an entry that leads on");
        table = entry & ADDRESS;
    }
    None
}
