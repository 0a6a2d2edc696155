//! `VIRTIO_F_IN_ORDER`: completions that wait until their turn comes (VIRTIO 1.2, 2.7.9 and 2.8.8).

use alloc::boxed::Box;
use alloc::vec;

use super::completion::Completion;

/// Completions by the turn of their chains. At most as many as the ring has entries are
/// outstanding.
pub(super) struct Order {
    waiting: Box<[Option<Completion>]>,
    /// How many wait.
    count: u16,
    /// The turn of the next chain that is taken, and of the next that may be completed.
    issued: u16,
    due: u16,
}

impl Order {
    /// For a ring of `size` entries.
    pub(super) fn new(size: u16) -> Self {
        Self {
            waiting: vec![None; usize::from(size)].into(),
            count: 0,
            issued: 0,
            due: 0,
        }
    }

    /// The turn of a chain that is taken now.
    #[inline]
    pub(super) fn issue(&mut self) -> u16 {
        let turn = self.issued;
        self.issued = self.after(turn);
        turn
    }

    /// The chain that was taken last is back in the ring.
    pub(super) fn recall(&mut self, turn: u16) {
        self.issued = turn;
    }

    /// Whether the chain of this turn is the next, and none waits behind it: it is done then.
    #[inline]
    pub(super) fn pass(&mut self, turn: u16) -> bool {
        let next = turn == self.due && self.count == 0;
        if next {
            self.due = self.after(turn);
        }
        next
    }

    /// The chain of this turn is done. Its completion, if the turn has come.
    #[inline]
    pub(super) fn finish(&mut self, turn: u16, completion: Completion) -> Option<Completion> {
        if turn == self.due {
            self.due = self.after(turn);
            return Some(completion);
        }
        self.waiting[usize::from(turn)] = Some(completion);
        self.count += 1;
        None
    }

    /// The next of the completions that wait, if its turn has come.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Completion> {
        if self.count == 0 {
            return None;
        }
        let completion = self.waiting[usize::from(self.due)].take()?;
        self.count -= 1;
        self.due = self.after(self.due);
        Some(completion)
    }

    #[inline]
    fn after(&self, turn: u16) -> u16 {
        let next = turn + 1;
        if usize::from(next) == self.waiting.len() {
            0
        } else {
            next
        }
    }
}
