//! The invalidation queue (VT-d 4.1, 6.5.2).

use virtq::DmaAddr;

use super::{Fake, IQE, QIES, State};

impl State {
    /// Does what is in the queue, unless it stands still.
    pub(super) fn run_queue(&mut self, fake: &Fake) {
        if self.status() & QIES == 0 {
            return;
        }
        let size = if fake.config.scalable { 32 } else { 16 };
        let base = self.register64(0x90) & !0xfff;
        let tail = self.register64(0x88);
        assert!(
            tail.is_multiple_of(size) && tail < 0x1000,
            "a tail of {tail:#x}"
        );
        while self.register64(0x80) != tail && !self.stuck {
            let head = self.register64(0x80);
            let at = base + head;
            if self.refuses_descriptors {
                let status = self.register(0x34);
                self.registers.insert(0x34, status | IQE);
                return;
            }
            let (low, high) = (fake.word(at), fake.word(at + 8));
            if size == 32 {
                assert_eq!((fake.word(at + 16), fake.word(at + 24)), (0, 0));
            }
            self.invalidate(fake, low, high);
            self.registers.insert(0x80, ((head + size) % 0x1000) as u32);
        }
    }

    fn invalidate(&mut self, fake: &Fake, low: u64, high: u64) {
        let (granularity, domain) = (low >> 4 & 3, (low >> 16) as u16);
        let source = (low >> 32) as u16;
        let caches = &mut self.caches;
        match (low & 0xf, granularity) {
            (0x1, 1) => {
                caches.contexts.clear();
                caches.absent_contexts.clear();
                self.stale.remove("contexts");
            }
            (0x1, 3) => {
                if domain == 0 {
                    caches.absent_contexts.remove(&source);
                }
                let known = caches.contexts.get(&source);
                if known.is_some_and(|context| context.domain == domain) && !fake.config.scalable {
                    caches.contexts.remove(&source);
                }
                // In scalable mode the PASID's entry is cached as well.
                if fake.config.scalable {
                    self.stale.insert("context");
                }
            }
            (0x7, 3) => {
                self.stale.remove("pasids");
            }
            (0x7, 0) => {
                if self.stale.remove("context") {
                    caches
                        .contexts
                        .retain(|_, context| context.domain != domain);
                }
            }
            (0x2, 1) => {
                caches.pages.clear();
                caches.absent_pages.clear();
                self.stale.remove("pages");
            }
            (0x2, 2) => {
                caches.pages.retain(|page| page.domain != domain);
                caches.absent_pages.retain(|(other, _)| *other != domain);
            }
            (0x2, 3) => {
                let most = fake.config.most_pages.expect("it can name pages");
                let log_pages = high & 0x3f;
                assert!(log_pages <= most, "{log_pages} are too many");
                let (first, size) = (high & !0xfff, 0x1000_u64 << log_pages);
                assert_eq!(first % size, 0, "the block is aligned");
                caches.pages.retain(|page| {
                    page.domain != domain
                        || page.first + page.size <= first
                        || first + size <= page.first
                });
                caches.absent_pages.retain(|(other, page)| {
                    *other != domain || !(first..first + size).contains(&(page << 12))
                });
            }
            (0x4, kind) if kind & 1 == 0 => {
                caches.interrupts.clear();
                caches.absent_interrupts.clear();
                self.stale.remove("interrupts");
            }
            (0x4, _) => {
                caches.interrupts.remove(&source);
                caches.absent_interrupts.remove(&source);
            }
            (0x5, _) => {
                assert_eq!(low >> 5 & 1, 1, "a status is written");
                let status = ((low >> 32) as u32).to_le_bytes();
                fake.heap
                    .write(DmaAddr(high), &status)
                    .expect("the status has memory");
                self.waits += 1;
            }
            other => panic!("descriptor {other:?} is invalid"),
        }
        if matches!(low & 0xf, 0x2) {
            assert_eq!(low >> 6 & 3, 3, "what is under way is drained");
        }
    }
}
