//! What a queue keeps for the chains in flight: scratch for their segments, and which ids are out.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::chain::Chain;
use super::error::Broken;

/// Chains, handed out and taken back without allocation.
pub(super) struct Pool {
    free: Vec<Chain>,
}

/// Why no chain of the pool was filled although one is there.
pub(super) enum Unfilled {
    /// The pool has none.
    NoRoom,
    /// The driver has broken the ring. What is known of the chain stays in it.
    Broken(Broken, Option<Chain>),
}

impl From<Broken> for Unfilled {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken, None)
    }
}

impl Pool {
    /// So many chains of up to `segments` segments each.
    pub(super) fn new(chains: u16, segments: u16, owner: u32) -> Self {
        Self {
            free: (0..chains)
                .map(|_| Chain::with_room(segments, owner))
                .collect(),
        }
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<Chain> {
        let mut chain = self.free.pop()?;
        chain.reset();
        Some(chain)
    }

    /// Takes back what [`Pool::take`] gave, so that the capacity suffices.
    #[inline]
    pub(super) fn give(&mut self, chain: Chain) {
        debug_assert!(self.free.len() < self.free.capacity());
        self.free.push(chain);
    }
}

/// The ids of the chains in flight.
pub(super) struct Held {
    bits: Box<[u64]>,
}

impl Held {
    /// None of the ids below `ids`.
    pub(super) fn new(ids: u32) -> Self {
        let words = ids.div_ceil(u64::BITS) as usize;
        Self {
            bits: vec![0; words].into(),
        }
    }

    /// Notes that a chain is in flight. Whether that is news.
    #[inline]
    pub(super) fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = Self::place(id);
        let news = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        news
    }

    #[inline]
    pub(super) fn remove(&mut self, id: u16) {
        let (word, bit) = Self::place(id);
        self.bits[word] &= !bit;
    }

    #[inline]
    fn place(id: u16) -> (usize, u64) {
        (usize::from(id / 64), 1 << (id % 64))
    }
}
