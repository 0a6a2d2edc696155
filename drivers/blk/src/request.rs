//! One request as the disk sees it: header, data, status (VIRTIO 1.2, 5.2.6).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use virtio::blk::{S, T};
use virtq::{Chain, DmaAllocator, DmaBuffer, DmaError, Segment};

use super::pool::Pool;

/// The header: type, reserved, sector.
const HEADER_LEN: usize = 16;
/// The header and, behind it, the status byte.
pub(super) const CONTROL_LEN: usize = HEADER_LEN + 1;
/// The distance of two control blocks, so that none shares a cache line with the next.
const CONTROL_STRIDE: usize = CONTROL_LEN.next_multiple_of(64);
/// In how many segments the data of a request may lie. Only disks that limit the size of a segment
/// need more than one.
pub(super) const DATA_SEGMENTS_MAX: u16 = 16;
/// The same, with the header and the status.
const SEGMENTS_MAX: usize = 18;
/// What the status byte holds until the disk writes it.
const STATUS_UNTOUCHED: u8 = 0xff;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    FromDisk,
    ToDisk,
}

/// The data of a request: the first `len` bytes of a buffer, which the disk sees as segments of at
/// most `segment_max` bytes, which is not zero.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) buffer: DmaBuffer,
    pub(super) len: u32,
    pub(super) segment_max: u32,
    pub(super) direction: Direction,
}

/// The disk did not answer as the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("the disk left the status of a request untouched")]
    NoStatus,
    #[error("the disk reports a status that does not exist")]
    UnknownStatus,
    #[error("the disk reports success and another length than was asked for")]
    BadLength,
}

/// What requests are written in, one slot for each request that can be with the disk.
#[derive(Debug)]
pub(super) struct RequestSlots(Arc<Pool<Box<RequestSlot>>>);

impl RequestSlots {
    /// `count` slots, whose control blocks are one allocation.
    pub(super) fn new(allocator: &Arc<dyn DmaAllocator>, count: usize) -> Result<Self, DmaError> {
        let pool = Arc::new(Pool::new(count));
        for control in DmaBuffer::pool(allocator, count, CONTROL_STRIDE)? {
            pool.keep(RequestSlot::new(control, &pool));
        }
        Ok(Self(pool))
    }

    /// A slot to write a request in. If all are out, it is made of memory from `allocator`.
    #[inline]
    pub(super) fn take(
        &self,
        allocator: impl FnOnce() -> Arc<dyn DmaAllocator>,
    ) -> Result<BlkRequest, DmaError> {
        let slot = match self.0.take() {
            Some(slot) => slot,
            None => RequestSlot::new(DmaBuffer::new(&allocator(), CONTROL_STRIDE)?, &self.0),
        };
        Ok(BlkRequest(Some(slot)))
    }

    /// Frees those that are here.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

/// The memory of a request.
#[derive(Debug)]
struct RequestSlot {
    /// [`CONTROL_LEN`] bytes or more.
    control: DmaBuffer,
    /// Of the data.
    buffer: Option<DmaBuffer>,
    /// How many bytes the disk writes if all goes well.
    writes: u32,
    /// What the device sees, of which it reads the first `readable`.
    segments: [Segment; SEGMENTS_MAX],
    readable: usize,
    count: usize,
    home: Weak<Pool<Box<Self>>>,
}

impl RequestSlot {
    fn new(control: DmaBuffer, home: &Arc<Pool<Box<Self>>>) -> Box<Self> {
        // The header is the first segment of every request.
        let header = Segment::part(&control, 0, HEADER_LEN as u32);
        Box::new(Self {
            control,
            buffer: None,
            writes: 1,
            segments: [header; SEGMENTS_MAX],
            readable: 1,
            count: 1,
            home: Arc::downgrade(home),
        })
    }

    /// Cuts the data into segments behind the header, and returns how many segments there are then.
    ///
    /// # Panics
    /// If the buffer is shorter than said, or there are more segments than a request has.
    #[inline]
    fn add_data(&mut self, data: &Data) -> usize {
        assert!(
            bytes(data.len) <= data.buffer.len(),
            "the data lies in its buffer"
        );
        let (mut start, mut count) = (0, 1);
        while start < data.len {
            let len = data.segment_max.min(data.len - start);
            self.segments[count] = Segment::part(&data.buffer, start, len);
            start += len;
            count += 1;
        }
        count
    }
}

/// A request to a disk, with the memory it needs. What is moved is small. The memory goes back to
/// where it came from when the request is [finished](Self::finish), and also if it is dropped.
#[derive(Debug)]
pub(super) struct BlkRequest(Option<Box<RequestSlot>>);

impl BlkRequest {
    /// Writes the request.
    ///
    /// # Panics
    /// If the data's buffer is shorter than said, or its segments are more than a request has.
    #[inline]
    pub(super) fn write(&mut self, kind: T, sector: u64, data: Option<Data>) {
        let slot = self.0.as_deref_mut().expect("a request keeps its slot");
        let control: &mut [u8; CONTROL_LEN] = slot.control.first_chunk_mut().expect("it is longer");
        control[..4].copy_from_slice(&u32::from(kind).to_le_bytes());
        control[4..8].fill(0);
        control[8..HEADER_LEN].copy_from_slice(&sector.to_le_bytes());
        control[HEADER_LEN] = STATUS_UNTOUCHED;
        // The status is a byte.
        let (readable, count, writes) = match &data {
            None => (1, 1, 1),
            Some(data) => match (slot.add_data(data), data.direction) {
                (count, Direction::ToDisk) => (count, count, 1),
                (count, Direction::FromDisk) => (1, count, data.len.saturating_add(1)),
            },
        };
        slot.segments[count] = Segment::part(&slot.control, HEADER_LEN as u32, 1);
        (slot.readable, slot.count, slot.writes) = (readable, count + 1, writes);
        slot.buffer = data.map(|data| data.buffer);
    }

    /// What the disk answered after it wrote `written` bytes, and the data's buffer. The rest goes
    /// back to `slots`.
    #[inline]
    pub(super) fn finish(
        mut self,
        written: u32,
        slots: &RequestSlots,
    ) -> Result<(S, Option<DmaBuffer>), Violation> {
        let mut slot = self.0.take().expect("a request keeps its slot");
        let (buffer, writes) = (slot.buffer.take(), slot.writes);
        let status = slot.control[HEADER_LEN];
        slots.0.keep(slot);
        let status = match status {
            STATUS_UNTOUCHED => return Err(Violation::NoStatus),
            // VIRTIO 1.2, 5.2.6: every other value belongs to features that are not negotiated.
            byte => match S::try_from(byte) {
                Ok(status @ (S::Ok | S::Ioerr | S::Unsupp)) => status,
                _ => return Err(Violation::UnknownStatus),
            },
        };
        // After a failure it is anybody's guess how much of the data was written.
        if status == S::Ok && written != writes {
            return Err(Violation::BadLength);
        }
        Ok((status, buffer))
    }
}

impl Drop for BlkRequest {
    fn drop(&mut self) {
        // Not of a request that is finished.
        if let Some(slot) = self.0.take() {
            recall(slot);
        }
    }
}

/// A request was given up and still has its data.
#[cold]
fn recall(mut slot: Box<RequestSlot>) {
    slot.buffer = None;
    if let Some(home) = slot.home.upgrade() {
        home.keep(slot);
    }
}

// SAFETY: The segments are disjoint parts of `control`, which holds `CONTROL_LEN` bytes or `write`
// would have panicked, and consecutive parts of the first `len` bytes of the data's buffer, which
// `write` has compared with its length. The value owns both buffers, does not change them, and lets
// nobody else.
unsafe impl Chain for BlkRequest {
    const MAX_SEGMENTS: u16 = DATA_SEGMENTS_MAX + 2;

    #[inline]
    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let slot = self.0.as_deref();
        let segments = slot.map_or(&[][..], |slot| &slot.segments[..slot.readable]);
        segments.iter().copied()
    }

    #[inline]
    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let slot = self.0.as_deref();
        let segments = slot.map_or(&[][..], |slot| &slot.segments[slot.readable..slot.count]);
        segments.iter().copied()
    }
}

fn bytes(len: u32) -> usize {
    usize::try_from(len).expect("usize is at least 32 bits")
}
