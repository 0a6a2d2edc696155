//! In which order a device returns chains. With `VIRTIO_F_IN_ORDER` it need not name each (VIRTIO
//! 1.2, 2.7.9 and 2.8.9).

use alloc::boxed::Box;
use alloc::vec;

/// In which order the device returns chains.
pub(super) enum Order {
    Any,
    /// As they were added (`VIRTIO_F_IN_ORDER`).
    Same(InOrderRing),
}

/// The chains in the ring, in the order in which they were added.
pub(super) struct InOrderRing {
    /// The id of each, at its position modulo the length, which is a power of two.
    pub(super) ids: Box<[u16]>,
    /// The position behind the last chain of a batch that the device has used, and what it wrote
    /// into that one.
    pub(super) batch_end: u64,
    pub(super) written: u32,
}

impl InOrderRing {
    /// An empty ring of so many entries.
    pub(super) fn new(size: u16) -> Self {
        Self {
            ids: vec![0; usize::from(size).next_power_of_two()].into(),
            batch_end: 0,
            written: 0,
        }
    }

    #[inline]
    pub(super) fn id(&self, position: u64) -> u16 {
        self.ids[self.place(position)]
    }

    #[inline]
    fn place(&self, position: u64) -> usize {
        // Only the lowest bits count.
        position as usize & (self.ids.len() - 1)
    }
}
