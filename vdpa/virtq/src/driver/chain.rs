//! What a driver puts into a queue: owned buffers, first those the device reads, then those it writes.

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
/// change while the value is in a queue.
pub unsafe trait Chain: Send + 'static {
    /// How many segments a chain of this type has at most. With indirect descriptors a queue keeps a
    /// table of this length for each chain; keep it near what the device's requests need.
    const MAX_SEGMENTS: u16;

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

/// A chain of at most one buffer that the device reads and at most one that it writes: a request and its
/// answer. One of the two must be there.
#[derive(Debug)]
pub struct Exchange {
    /// What the device reads.
    pub request: Option<Readable>,
    /// What it writes.
    pub answer: Option<Writable>,
}

// SAFETY: the segments are those of the two chains that the value owns, each in a buffer of its own.
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
