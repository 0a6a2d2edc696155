//! `VIRTIO_F_IN_ORDER`: completions that wait until their turn comes (VIRTIO 1.2, 2.7.9 and 2.8.8).

use alloc::boxed::Box;
use alloc::vec;

use super::completion::Completion;

/// Completions by the serial numbers of their chains. At most as many as the ring has entries are
/// outstanding.
pub(super) struct Order {
    waiting: Box<[Option<Completion>]>,
    /// How many wait.
    count: u16,
    /// The number of the chain that may be completed next.
    due: u64,
}

impl Order {
    /// For a ring of `size` entries, whose first chain has the number `first`.
    pub(super) fn new(size: u16, first: u64) -> Self {
        Self {
            waiting: vec![None; usize::from(size)].into(),
            count: 0,
            due: first,
        }
    }

    /// Whether the chain of this number is the next, and none waits behind it: it is done then.
    #[inline]
    pub(super) fn pass(&mut self, serial: u64) -> bool {
        let next = serial == self.due && self.count == 0;
        if next {
            self.due += 1;
        }
        next
    }

    /// The chain of this number is done. Its completion, if it is the next.
    pub(super) fn finish(&mut self, serial: u64, completion: Completion) -> Option<Completion> {
        if serial == self.due {
            self.due += 1;
            return Some(completion);
        }
        let place = self.place(serial);
        self.waiting[place] = Some(completion);
        self.count += 1;
        None
    }

    /// The next of the completions that wait, if its turn has come.
    pub(super) fn next(&mut self) -> Option<Completion> {
        if self.count == 0 {
            return None;
        }
        let place = self.place(self.due);
        let completion = self.waiting[place].take()?;
        self.count -= 1;
        self.due += 1;
        Some(completion)
    }

    fn place(&self, serial: u64) -> usize {
        // Below the length, which is one of the processor.
        (serial % self.waiting.len() as u64) as usize
    }
}
