//! How the memory that is free at the start is shared by those who will want some at the same time.
//!
//! What a client can make the server hold is bounded per connection, and there are no more
//! connections than memory for them. What cannot be bounded in advance, the pages about devices,
//! draws on a [`Pool`].

use alloc::rc::Rc;
use core::cell::Cell;

/// The most that a connection has to send at once, in bytes, and the least.
const SEND_MAX: usize = 32 * 1024;
const SEND_MIN: usize = 4 * 1024;
/// With less memory than so many connections need, each has less to send.
const FEW: usize = 24;
/// The most that the buffers of a download take at once, each, in bytes.
const PIECE_MAX: usize = 64 * 1024;
/// The least.
const PIECE_MIN: usize = 4 * 1024;

/// Who gets how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many connections there can be at once.
    pub connections: usize,
    /// How many bytes a connection has to send at once.
    pub send: usize,
    /// How many bytes of a file a download holds in each of its two buffers.
    pub piece: usize,
    /// How many bytes the entries of a directory may take that are sorted for one connection.
    pub listing: usize,
    /// How many bytes all pages about devices may take together.
    pub pages: usize,
}

impl Shares {
    /// Shares `free` bytes among at most `most` connections, each of which needs `others` bytes
    /// from the start besides what it sends.
    #[must_use]
    pub fn of(free: u64, most: usize, others: usize) -> Self {
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let buffers = free / 3;
        let send = buffers / FEW.min(most).max(1);
        let send = power_of_two(send.saturating_sub(others).clamp(SEND_MIN, SEND_MAX));
        let connections = (buffers / (send + others)).clamp(1, most.max(1));
        let piece = free / 4 / (2 * connections);
        Self {
            connections,
            send,
            // Whole blocks of any disk.
            piece: power_of_two(piece.clamp(PIECE_MIN, PIECE_MAX)),
            listing: free / 8 / connections,
            pages: free / 8,
        }
    }
}

/// The largest that is not larger.
const fn power_of_two(bytes: usize) -> usize {
    1 << bytes.ilog2()
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
            let shares = Shares::of(free as u64, 56, 24 * KIB);
            let each = 24 * KIB + shares.send + 2 * shares.piece + shares.listing;
            let sum = shares.connections * each + shares.pages;
            assert!(sum < free - free / 8, "{free}: {shares:?}");
            assert!(shares.piece.is_power_of_two());
        }
    }

    #[test]
    fn small_machines_have_fewer_connections_and_smaller_pieces() {
        for (free, expected) in [
            (120 * MIB, (56, 32 * KIB, 64 * KIB)),
            (4 * MIB, (24, 32 * KIB, 16 * KIB)),
            (2 * MIB, (24, 4 * KIB, 8 * KIB)),
            (MIB, (12, 4 * KIB, 8 * KIB)),
            (0, (1, 4 * KIB, 4 * KIB)),
        ] {
            let shares = Shares::of(free as u64, 56, 24 * KIB);
            let shares = (shares.connections, shares.send, shares.piece);
            assert_eq!(shares, expected, "{free}");
        }
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
