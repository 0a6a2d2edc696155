//! A queue of a block function whose rings a test writes byte by byte.

use std::cell::Cell;
use std::sync::Arc;

use ifcvf_card::{Product, Served};
use virtq::{DmaAddr, DmaAllocator, DmaBuffer};

use crate::slot::{Slot, VERSION_1, halves};

use super::{Case, assert_caught};

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;
/// Entries of the queue.
pub(super) const SIZE: u16 = 8;

/// A page for each part, and one for a table.
pub(super) struct Raw {
    pub(super) slot: Slot,
    memory: DmaBuffer,
    index: Cell<u16>,
}

impl Raw {
    /// Queue 0 is set up; it is enabled by [`Raw::run`].
    fn new(features: u128) -> Self {
        let slot = Slot::of(Product::VirtioBlk);
        assert!(slot.negotiate(VERSION_1 | features));
        let dma = Arc::clone(&slot.heap) as Arc<dyn DmaAllocator>;
        let raw = Self {
            memory: DmaBuffer::new(&dma, 4 * 4096).unwrap(),
            slot,
            index: Cell::new(0),
        };
        raw.slot.write16(0, 0x16, 0);
        raw.slot.write16(0, 0x18, SIZE);
        for (part, at) in (0..3).zip((0x20..).step_by(8)) {
            let [low, high] = halves(raw.page(part));
            raw.slot.write32(0, at, low);
            raw.slot.write32(0, at + 4, high);
        }
        raw
    }

    pub(super) fn run(&self) {
        self.slot.enable(0);
        self.slot.run();
    }

    /// The descriptors, the driver's part, the device's part, and a page for tables.
    pub(super) fn page(&self, part: u64) -> u64 {
        self.memory.addr().0 + 4096 * part
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.slot.heap.write(DmaAddr(at), bytes).unwrap();
    }

    /// A descriptor of the ring; the last two words as they lie in memory.
    pub(super) fn descriptor(&self, index: u64, len: u32, third: u16, fourth: u16) {
        self.place(self.page(0) + 16 * index, self.page(3), len, third, fourth);
    }

    /// A descriptor of the ring that leads to the table.
    pub(super) fn table(&self, index: u64, len: u32, third: u16, fourth: u16) {
        self.descriptor(index, len, third, fourth);
    }

    /// A descriptor in the table.
    pub(super) fn in_table(&self, index: u64, third: u16, fourth: u16) {
        self.place(self.page(3) + 16 * index, self.page(3), 16, third, fourth);
    }

    fn place(&self, at: u64, addr: u64, len: u32, third: u16, fourth: u16) {
        self.put(at, &addr.to_le_bytes());
        self.put(at + 8, &len.to_le_bytes());
        self.put(at + 12, &third.to_le_bytes());
        self.put(at + 14, &fourth.to_le_bytes());
    }

    /// Makes a chain available in a split ring.
    pub(super) fn offer(&self, head: u16) {
        let index = self.index.get();
        let slot = 2 * u64::from(index % SIZE);
        self.put(self.page(1) + 4 + slot, &head.to_le_bytes());
        self.index.set(index + 1);
        self.put(self.page(1) + 2, &(index + 1).to_le_bytes());
    }

    /// Notifies, and lets the device work for one round.
    pub(super) fn kick(&self) -> Served {
        self.slot.write16(0, 0x1000, 0);
        self.slot.card.serve()
    }
}

/// Lets each case write its rings, with `features`, and the device look at them.
#[track_caller]
pub(super) fn check(features: u128, cases: &[Case<Raw>]) {
    for (section, words, breaks) in cases {
        let raw = Raw::new(features);
        breaks(&raw);
        raw.kick();
        assert_caught(&raw.slot, section, words);
        raw.slot.reset();
    }
}
