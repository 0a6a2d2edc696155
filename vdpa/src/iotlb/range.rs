//! Ranges of I/O virtual addresses.

use core::fmt;

/// A range of I/O virtual addresses that holds at least one, up to all 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IovaRange {
    first: u64,
    last: u64,
}

/// Why there is no such range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// It would hold no address.
    #[error("a range without an address")]
    Empty,
    /// It would reach beyond the last address.
    #[error("a range that reaches beyond the last address")]
    Wraps,
}

impl IovaRange {
    /// Every address.
    pub const ALL: Self = Self {
        first: 0,
        last: u64::MAX,
    };

    /// The `len` addresses from `first` on.
    ///
    /// # Errors
    /// [`RangeError`], if there are none, or not that many.
    pub const fn new(first: u64, len: u64) -> Result<Self, RangeError> {
        let Some(further) = len.checked_sub(1) else {
            return Err(RangeError::Empty);
        };
        match first.checked_add(further) {
            Some(last) => Ok(Self { first, last }),
            None => Err(RangeError::Wraps),
        }
    }

    /// The addresses from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`RangeError::Empty`], if `last` lies before `first`.
    pub const fn from_bounds(first: u64, last: u64) -> Result<Self, RangeError> {
        if first <= last {
            Ok(Self { first, last })
        } else {
            Err(RangeError::Empty)
        }
    }

    /// As [`from_bounds`](Self::from_bounds), where the order is known.
    pub(super) const fn ordered(first: u64, last: u64) -> Self {
        debug_assert!(first <= last);
        Self { first, last }
    }

    /// The first address.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The last address, which belongs to the range.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many addresses there are, which is one more than 64 bits can say if it is all of them.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a range holds at least one address"
    )]
    pub fn len(&self) -> u128 {
        u128::from(self.last - self.first) + 1
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn contains(&self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_at_the_last_address_and_not_beyond() {
        let top = IovaRange::new(u64::MAX - 0xfff, 0x1000).unwrap();
        assert_eq!((top.last(), top.len()), (u64::MAX, 0x1000));
        assert_eq!(
            IovaRange::new(u64::MAX - 0xfff, 0x1001),
            Err(RangeError::Wraps)
        );
        assert_eq!(IovaRange::new(7, 0), Err(RangeError::Empty));
        assert_eq!(IovaRange::from_bounds(7, 6), Err(RangeError::Empty));
        assert_eq!(IovaRange::ALL.len(), 1 << 64);
    }

    #[test]
    fn a_range_contains_what_lies_inside_up_to_its_ends() {
        let range = IovaRange::new(0x1000, 0x2000).unwrap();
        let contains = |first, last| range.contains(IovaRange::from_bounds(first, last).unwrap());
        assert!(contains(0x1000, 0x2fff) && contains(0x2fff, 0x2fff));
        assert!(!contains(0xfff, 0x1000) && !contains(0x2fff, 0x3000));
        assert!(IovaRange::ALL.contains(range));
    }
}
