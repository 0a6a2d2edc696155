//! How the memory that is free at the start is shared by those who will want some at the same time.
//!
//! What a client can make the server hold is bounded per connection, and there are no more connections than memory for
//! them. What cannot be bounded in advance, the pages about devices, draws on a [`Pool`].

use alloc::rc::Rc;
use core::cell::Cell;

/// The most that the buffers of a download take at once, each, in bytes.
const PIECE_MAX: usize = 64 * 1024;
/// The least.
const PIECE_MIN: usize = 4 * 1024;

/// Who gets how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many connections there can be at once.
    pub connections: usize,
    /// How many bytes of a file a download holds in each of its two buffers.
    pub piece: usize,
    /// How many bytes the entries of a directory may take that are sorted for one connection.
    pub listing: usize,
    /// How many bytes all pages about devices may take together.
    pub pages: usize,
}

impl Shares {
    /// Shares `free` bytes among at most `most` connections, each of which needs `buffers` bytes from the start.
    #[must_use]
    pub fn of(free: u64, most: usize, buffers: usize) -> Self {
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let connections = (free / 3 / buffers.max(1)).clamp(1, most.max(1));
        let piece = (free / 4 / (2 * connections)).clamp(PIECE_MIN, PIECE_MAX);
        Self {
            connections,
            // Whole blocks of any disk.
            piece: 1 << piece.ilog2(),
            listing: free / 8 / connections,
            pages: free / 8,
        }
    }
}

/// An amount of memory of which several may hold a part.
#[derive(Debug)]
pub struct Pool {
    left: Cell<usize>,
}

/// A part of a pool, until it is dropped.
#[derive(Debug)]
pub struct Part {
    pool: Rc<Pool>,
    bytes: usize,
}

impl Pool {
    /// A pool of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(bytes),
        })
    }

    /// Takes a part, if it is there.
    #[must_use]
    pub fn take(self: &Rc<Self>, bytes: usize) -> Option<Part> {
        self.left.set(self.left.get().checked_sub(bytes)?);
        Some(Part {
            pool: Rc::clone(self),
            bytes,
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.pool.left.update(|left| left + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    #[test]
    fn all_shares_together_are_less_than_what_is_free() {
        for free in [256 * KIB, MIB, 4 * MIB, 14 * MIB, 120 * MIB, 1 << 34] {
            let shares = Shares::of(free as u64, 56, 56 * KIB);
            let each = 56 * KIB + 2 * shares.piece + shares.listing;
            let sum = shares.connections * each + shares.pages;
            assert!(sum < free - free / 8, "{free}: {shares:?}");
            assert!(shares.piece.is_power_of_two());
        }
    }

    #[test]
    fn small_machines_have_fewer_connections_and_smaller_pieces() {
        let large = Shares::of(120 << 20, 56, 56 * KIB);
        assert_eq!((large.connections, large.piece), (56, 64 * KIB));
        let small = Shares::of(4 << 20, 56, 56 * KIB);
        assert_eq!((small.connections, small.piece), (24, 16 * KIB));
        let none = Shares::of(0, 56, 56 * KIB);
        assert_eq!((none.connections, none.piece), (1, 4 * KIB));
    }

    #[test]
    fn a_pool_gives_what_it_has_and_gets_it_back() {
        let pool = Pool::new(10);
        let six = pool.take(6).unwrap();
        assert!(pool.take(5).is_none());
        let four = pool.take(4).unwrap();
        assert!(pool.take(1).is_none());
        drop(six);
        assert!(pool.take(6).is_some());
        drop(four);
        assert!(pool.take(10).is_some());
    }
}
