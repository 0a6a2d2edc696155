//! What a driver puts into a queue: owned buffers, first those the device reads, then those it
//! writes; and how they lie in the ring.

use super::IndirectTable;
use crate::format::{F_NEXT, F_WRITE};
use crate::{AddressSpaceId, DmaAddr, DmaBuffer};

/// One contiguous piece of a chain, as one descriptor names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the device finds it.
    pub addr: DmaAddr,
    /// Its length in bytes, not zero.
    pub len: u32,
    /// Whose address it is; a queue checks it.
    pub(crate) space: AddressSpaceId,
}

impl Segment {
    /// The whole of a buffer.
    #[must_use]
    pub fn of(buffer: &DmaBuffer) -> Self {
        Self {
            addr: buffer.addr(),
            len: buffer.len_u32(),
            space: buffer.space(),
        }
    }

    /// `len` bytes of a buffer from `offset` on, which lie inside it.
    #[must_use]
    #[inline]
    pub fn part(buffer: &DmaBuffer, offset: u32, len: u32) -> Self {
        debug_assert!(u64::from(offset) + u64::from(len) <= u64::from(buffer.len_u32()));
        Self {
            addr: buffer.addr().offset(offset as usize),
            len,
            space: buffer.space(),
        }
    }

    /// The first `len` bytes of a buffer, or all of it if it is shorter.
    #[must_use]
    pub fn prefix(buffer: &DmaBuffer, len: u32) -> Self {
        Self {
            addr: buffer.addr(),
            len: len.min(buffer.len_u32()),
            space: buffer.space(),
        }
    }

    /// What a descriptor says to a device, at an address of the platform.
    #[must_use]
    pub const fn described(addr: DmaAddr, len: u32) -> Self {
        Self {
            addr,
            len,
            space: AddressSpaceId::PLATFORM,
        }
    }
}

/// Buffers that a queue lends to the device and gives back when the device has used them.
///
/// VIRTIO 1.2, 2.6.4.2: the parts that the device reads come before those that it writes.
///
/// # Safety
/// Every segment must lie in memory that the value owns, exclusively, until it is dropped, wherever
/// the value is moved; a read-only and a writable segment must not overlap. The segments must not
/// change while the value is in a queue. A [`table`](Chain::table) lies in such memory, too, and
/// names the same segments, those that the device reads first.
pub unsafe trait Chain: Send + 'static {
    /// How many segments a chain of this type has at most. With indirect descriptors a queue keeps
    /// a table of this length for each chain; keep it near what the device's requests need.
    const MAX_SEGMENTS: u16;

    /// Whether the chains have tables of their own. A queue keeps none for them then.
    const KEEPS_TABLE: bool = false;

    /// The indirect table of the chain, if it has one and [says so](Self::KEEPS_TABLE). A queue
    /// whose features are not the table's asks for the segments instead.
    #[inline]
    fn table(&self) -> Option<&IndirectTable> {
        None
    }

    /// The segments that the device reads.
    fn readable(&self) -> impl ExactSizeIterator<Item = Segment>;

    /// The segments that the device writes.
    fn writable(&self) -> impl ExactSizeIterator<Item = Segment>;
}

/// A chain of one buffer that the device reads the first `len` bytes of.
#[derive(Debug)]
pub struct Readable {
    /// The bytes.
    pub buffer: DmaBuffer,
    /// How many of them the device shall read; not zero.
    pub len: u32,
}

// SAFETY: the only segment is a prefix of the buffer that the value owns.
unsafe impl Chain for Readable {
    const MAX_SEGMENTS: u16 = 1;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::once(Segment::prefix(&self.buffer, self.len))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::empty()
    }
}

/// A chain of one buffer that the device may write all of.
#[derive(Debug)]
pub struct Writable(pub DmaBuffer);

// SAFETY: the only segment is the buffer that the value owns.
unsafe impl Chain for Writable {
    const MAX_SEGMENTS: u16 = 1;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::empty()
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::once(Segment::of(&self.0))
    }
}

/// A chain of at most one buffer that the device reads and at most one that it writes: a request
/// and its answer. One of the two must be there.
#[derive(Debug)]
pub struct Exchange {
    /// What the device reads.
    pub request: Option<Readable>,
    /// What it writes.
    pub answer: Option<Writable>,
}

// SAFETY: the segments are those of the two chains that the value owns, each in a buffer of its
// own.
unsafe impl Chain for Exchange {
    const MAX_SEGMENTS: u16 = 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let segment = self.request.as_ref();
        segment
            .map(|request| Segment::prefix(&request.buffer, request.len))
            .into_iter()
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let segment = self.answer.as_ref();
        segment.map(|answer| Segment::of(&answer.0)).into_iter()
    }
}

/// The segment of a chain whose type has no more than one, and the flags of its descriptor.
#[inline(always)]
pub(super) fn only<T: Chain>(chain: &T) -> Option<(Segment, u16)> {
    if T::MAX_SEGMENTS > 1 || T::KEEPS_TABLE {
        return None;
    }
    let (mut readable, mut writable) = (chain.readable(), chain.writable());
    let only = match (readable.next(), writable.next()) {
        (Some(segment), None) => (segment, 0),
        (None, Some(segment)) => (segment, F_WRITE),
        _ => return None,
    };
    // The type may have said what is not so.
    (readable.len() + writable.len() == 0).then_some(only)
}

/// What the segments of a chain come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) segments: u32,
    /// How many bytes they hold, and how many of them the device may write.
    pub(super) bytes: u64,
    pub(super) writable: u64,
    /// Whether a segment has no byte.
    pub(super) has_empty: bool,
    /// Whether a segment lies in another address space.
    pub(super) has_foreign: bool,
}

impl Totals {
    /// Those of a chain whose segments are to lie in `space`.
    #[inline]
    pub(super) fn of<T: Chain>(chain: &T, space: AddressSpaceId) -> Self {
        let mut totals = Self::default();
        for segment in chain.readable() {
            totals.look(&segment, space);
        }
        for segment in chain.writable() {
            totals.look(&segment, space);
            totals.writable += u64::from(segment.len);
        }
        totals
    }

    #[inline(always)]
    pub(super) fn look(&mut self, segment: &Segment, space: AddressSpaceId) {
        self.segments += 1;
        self.bytes += u64::from(segment.len);
        self.has_empty |= segment.len == 0;
        self.has_foreign |= segment.space != space;
    }
}

/// How a chain lies in a ring, decided before anything is written.
pub(super) struct Plan {
    /// How many segments it has.
    pub(super) segments: u16,
    /// How many descriptors of the ring it takes.
    pub(super) descriptors: u16,
    /// How many bytes the device may write.
    pub(super) writable: u32,
    /// The chain's own table.
    pub(super) table: Option<Segment>,
}

impl Plan {
    /// Whether the chain goes into an indirect table.
    pub(super) fn is_indirect(&self) -> bool {
        self.descriptors < self.segments
    }
}

/// Calls `write` with the segments of a chain, first those the device reads, each with its
/// descriptor's flags, in one plain loop for each kind.
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
