//! How a chain will lie in a ring, decided before anything is written.

use super::error::AddReason;
use super::{Chain, Segment};
use crate::AddressSpaceId;
use crate::format::{F_NEXT, F_WRITE};

/// What a queue has for a chain.
pub(super) struct Room {
    /// Whose addresses the device uses.
    pub(super) space: AddressSpaceId,
    /// Entries of the ring.
    pub(super) size: u16,
    /// How many of them are free.
    pub(super) free: u16,
    /// Entries of each indirect table; 0 for none.
    pub(super) table_len: u16,
}

impl Room {
    /// How many descriptors of the ring a chain takes.
    #[inline]
    fn descriptors(&self, segments: u16) -> u16 {
        let indirect = segments > 1 && segments <= self.table_len;
        if indirect { 1 } else { segments }
    }
}

/// A chain's needs.
pub(super) struct Plan {
    /// How many segments it has.
    pub(super) segments: u16,
    /// How many descriptors of the ring it takes.
    pub(super) descriptors: u16,
    /// How many bytes the device may write.
    pub(super) writable: u32,
}

impl Plan {
    /// Looks at a chain for a queue with so much `room`.
    #[inline]
    pub(super) fn new<T: Chain>(chain: &T, room: &Room) -> Result<Self, AddReason> {
        let segments = chain.readable().len() + chain.writable().len();
        // VIRTIO 1.2, 2.7.5.3.1: no chain is longer than the queue, indirect or not.
        let limit = T::MAX_SEGMENTS.min(room.size);
        let segments = match u16::try_from(segments) {
            Ok(0) => return Err(AddReason::Empty),
            Ok(segments) if segments <= limit => segments,
            _ => return Err(AddReason::TooLong),
        };
        let readable = total(chain.readable(), room.space)?;
        let writable = total(chain.writable(), room.space)?;
        // VIRTIO 1.2, 2.7.5: no chain is longer than 2^32 bytes.
        if readable + writable > u64::from(u32::MAX) {
            return Err(AddReason::TooLong);
        }
        let writable = u32::try_from(writable).map_err(|_| AddReason::TooLong)?;
        let descriptors = room.descriptors(segments);
        if room.free < descriptors {
            return Err(AddReason::Full);
        }
        Ok(Self {
            segments,
            descriptors,
            writable,
        })
    }

    /// The plan of a chain that has been added before, with the same needs.
    pub(super) fn again<T: Chain>(chain: &T, descriptors: u16, writable: u32) -> Self {
        let segments = chain.readable().len() + chain.writable().len();
        Self {
            segments: u16::try_from(segments).expect("the chain has been added before"),
            descriptors,
            writable,
        }
    }

    /// Whether the chain goes into an indirect table.
    pub(super) fn is_indirect(&self) -> bool {
        self.descriptors < self.segments
    }
}

/// The segments of a chain, first those the device reads, each with its descriptor's flags.
#[inline]
pub(super) fn flagged<T: Chain>(chain: &T, segments: u16) -> impl Iterator<Item = (Segment, u16)> {
    let readable = chain.readable().map(|segment| (segment, 0));
    let writable = chain.writable().map(|segment| (segment, F_WRITE));
    let places = (0..segments).rev();
    readable
        .chain(writable)
        .zip(places)
        .map(|((segment, flags), left)| {
            let next = if left > 0 { F_NEXT } else { 0 };
            (segment, flags | next)
        })
}

/// Calls `write` with what [`flagged`] returns, in one plain loop for each kind of segment: faster, if `write`
/// is so short that there may be two copies of it.
#[inline]
pub(super) fn describe<T: Chain>(chain: &T, segments: u16, mut write: impl FnMut(Segment, u16)) {
    let mut left = segments;
    let mut describe = |segment, flags| {
        // A chain that has become longer since it was looked at is not written any further.
        let Some(after) = left.checked_sub(1) else {
            return;
        };
        left = after;
        let next = if left > 0 { F_NEXT } else { 0 };
        write(segment, flags | next);
    };
    chain.readable().for_each(|segment| describe(segment, 0));
    chain
        .writable()
        .for_each(|segment| describe(segment, F_WRITE));
}

/// The length of some segments together.
#[inline]
fn total(segments: impl Iterator<Item = Segment>, space: AddressSpaceId) -> Result<u64, AddReason> {
    let (mut sum, mut empty, mut foreign) = (0, false, false);
    segments.for_each(|segment| {
        sum += u64::from(segment.len);
        empty |= segment.len == 0;
        foreign |= segment.space != space;
    });
    if empty {
        Err(AddReason::Empty)
    } else if foreign {
        Err(AddReason::Foreign)
    } else {
        Ok(sum)
    }
}
