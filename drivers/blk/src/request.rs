//! One request as the disk sees it: header, data, status (VIRTIO 1.2, 5.2.6).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::ops::Range;

use virtio::blk::{S, T};
use virtq::{Chain, DmaAllocator, DmaBuffer, DmaError, IndirectTable, RingFeatures, Segment};

use super::pool::Pool;

/// The header: type, reserved, sector.
const HEADER_LEN: usize = 16;
/// The header and, behind it, the status byte.
pub(super) const CONTROL_LEN: usize = HEADER_LEN + 1;
/// What they take of a slot's memory. The table follows.
const CONTROL_ROOM: usize = 32;
/// In how many segments the data of a request may lie. Only disks that limit the size of a segment
/// need more than one.
pub(super) const DATA_SEGMENTS_MAX: u16 = 16;
/// What the status byte holds until the disk writes it.
const STATUS_UNTOUCHED: u8 = 0xff;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    FromDisk,
    ToDisk,
}

/// The data of a request: the first `len` bytes of a buffer.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) buffer: DmaBuffer,
    pub(super) len: u32,
    pub(super) direction: Direction,
}

/// How slots are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotForm {
    pub(super) features: RingFeatures,
    /// The longest segment of data in bytes, not zero.
    pub(super) segment_max: u32,
    /// In how many segments the data of a request lie at most.
    pub(super) data_segments: u16,
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
pub(super) struct RequestSlots {
    form: SlotForm,
    pool: Arc<Pool<Box<RequestSlot>>>,
}

impl RequestSlots {
    /// `count` slots, whose memory is one allocation.
    pub(super) fn new(
        allocator: &Arc<dyn DmaAllocator>,
        count: usize,
        form: SlotForm,
    ) -> Result<Self, DmaError> {
        let pool = Arc::new(Pool::new(count));
        for memory in DmaBuffer::pool(allocator, count, form.len())? {
            pool.keep(RequestSlot::new(memory, &form, &pool));
        }
        Ok(Self { form, pool })
    }

    /// A slot to write a request in. If all are out, it is made of memory from `allocator`.
    #[inline]
    pub(super) fn take(
        &self,
        allocator: impl FnOnce() -> Arc<dyn DmaAllocator>,
    ) -> Result<BlkRequest, DmaError> {
        let slot = match self.pool.take() {
            Some(slot) => slot,
            None => self.make(&allocator())?,
        };
        Ok(BlkRequest(Some(slot)))
    }

    #[cold]
    fn make(&self, allocator: &Arc<dyn DmaAllocator>) -> Result<Box<RequestSlot>, DmaError> {
        let memory = DmaBuffer::new(allocator, self.form.len())?;
        Ok(RequestSlot::new(memory, &self.form, &self.pool))
    }

    /// Frees those that are here.
    pub(super) fn clear(&self) {
        self.pool.clear();
    }
}

impl SlotForm {
    /// How much memory a slot takes, so that none shares a cache line with the next.
    fn len(&self) -> usize {
        let table = if self.features.indirect {
            IndirectTable::len(usize::from(self.data_segments) + 2)
        } else {
            1
        };
        (CONTROL_ROOM + table).next_multiple_of(64)
    }
}

/// The memory of a request.
#[derive(Debug)]
struct RequestSlot {
    /// [`CONTROL_ROOM`] bytes.
    control: DmaBuffer,
    /// Where the disk finds all of the request, if its queue has indirect descriptors.
    table: Option<IndirectTable>,
    /// Of the data, with how many of its bytes are transferred.
    buffer: Option<DmaBuffer>,
    len: u32,
    segment_max: u32,
    direction: Direction,
    home: Weak<Pool<Box<Self>>>,
}

impl RequestSlot {
    fn new(memory: DmaBuffer, form: &SlotForm, home: &Arc<Pool<Box<Self>>>) -> Box<Self> {
        let (control, table) = memory.split_at(CONTROL_ROOM);
        Box::new(Self {
            control,
            table: IndirectTable::new(table, form.features),
            buffer: None,
            len: 0,
            segment_max: form.segment_max,
            direction: Direction::ToDisk,
            home: Arc::downgrade(home),
        })
    }

    #[inline]
    fn header(&self) -> Segment {
        Segment::part(&self.control, 0, HEADER_LEN as u32)
    }

    #[inline]
    fn status(&self) -> Segment {
        Segment::part(&self.control, HEADER_LEN as u32, 1)
    }

    /// In how many segments the data lie.
    #[inline]
    fn data_segments(&self) -> u32 {
        if self.len <= self.segment_max {
            u32::from(self.len > 0)
        } else {
            self.len.div_ceil(self.segment_max)
        }
    }

    /// How many bytes the disk writes if all goes well. The status is a byte.
    #[inline]
    fn writes(&self) -> u32 {
        match self.direction {
            Direction::ToDisk => 1,
            Direction::FromDisk => self.len.saturating_add(1),
        }
    }

    /// How many segments the disk reads.
    fn readable(&self) -> u32 {
        match self.direction {
            Direction::ToDisk => 1 + self.data_segments(),
            Direction::FromDisk => 1,
        }
    }

    fn segment(&self, index: u32) -> Segment {
        match (index.checked_sub(1), &self.buffer) {
            (None, _) => self.header(),
            (Some(before), Some(buffer)) if before < self.data_segments() => {
                let start = before * self.segment_max;
                Segment::part(buffer, start, self.segment_max.min(self.len - start))
            }
            _ => self.status(),
        }
    }

    /// Makes a table for data out of that of the last request, if both have one segment of data
    /// that goes the same way.
    #[inline]
    fn takes_instead(&mut self, buffer: &DmaBuffer, len: u32, direction: Direction) -> bool {
        let is_alike = self.direction == direction && len <= self.segment_max;
        let had_one = 0 < self.len && self.len <= self.segment_max;
        match &mut self.table {
            Some(table) if is_alike && had_one => table.replace(1, Segment::prefix(buffer, len)),
            _ => false,
        }
    }

    /// Makes it the request for these data, and writes its table.
    #[inline(never)]
    fn set(&mut self, buffer: Option<DmaBuffer>, len: u32, direction: Direction) {
        (self.buffer, self.len, self.direction) = (buffer, len, direction);
        let (readable, segments) = (self.readable(), self.data_segments() + 2);
        let Some(mut table) = self.table.take() else {
            return;
        };
        let mut writer = table.write(segments);
        for index in 0..segments {
            let segment = self.segment(index);
            if index < readable {
                writer.readable(segment);
            } else {
                writer.writable(segment);
            }
        }
        writer.end();
        self.table = Some(table);
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
    /// If the data's buffer is shorter than said.
    #[inline]
    pub(super) fn write(&mut self, kind: T, sector: u64, data: Option<Data>) {
        let slot = self.0.as_deref_mut().expect("a request keeps its slot");
        let control: &mut [u8; CONTROL_LEN] = slot.control.first_chunk_mut().expect("it is longer");
        // The reserved field behind the type is zero.
        control[..8].copy_from_slice(&u64::from(u32::from(kind)).to_le_bytes());
        control[8..HEADER_LEN].copy_from_slice(&sector.to_le_bytes());
        control[HEADER_LEN] = STATUS_UNTOUCHED;
        let Some(Data {
            buffer,
            len,
            direction,
        }) = data
        else {
            return slot.set(None, 0, Direction::ToDisk);
        };
        assert!(bytes(len) <= buffer.len(), "the data lies in its buffer");
        if !slot.takes_instead(&buffer, len, direction) {
            return slot.set(Some(buffer), len, direction);
        }
        slot.len = len;
        slot.buffer = Some(buffer);
    }

    /// What the disk answered after it wrote `written` bytes, and the data's buffer. The rest goes
    /// back to `slots`.
    #[inline]
    pub(super) fn finish(
        mut self,
        written: u32,
        slots: &RequestSlots,
    ) -> (Result<S, Violation>, Option<DmaBuffer>) {
        let mut slot = self.0.take().expect("a request keeps its slot");
        let (buffer, writes) = (slot.buffer.take(), slot.writes());
        let status = slot.control[HEADER_LEN];
        slots.pool.keep(slot);
        // After a failure it is anybody's guess how much of the data was written.
        let answer = if status == u8::from(S::Ok) && written == writes {
            Ok(S::Ok)
        } else {
            failure(status)
        };
        (answer, buffer)
    }
}

/// What a status says that is not that of a complete success.
#[cold]
fn failure(status: u8) -> Result<S, Violation> {
    match status {
        STATUS_UNTOUCHED => Err(Violation::NoStatus),
        // VIRTIO 1.2, 5.2.6: every other value belongs to features that are not negotiated.
        byte => match S::try_from(byte) {
            Ok(S::Ok) => Err(Violation::BadLength),
            Ok(status @ (S::Ioerr | S::Unsupp)) => Ok(status),
            _ => Err(Violation::UnknownStatus),
        },
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

// SAFETY: The segments are disjoint parts of `control`, which holds `CONTROL_ROOM` bytes, and
// consecutive parts of the first `len` bytes of the data's buffer, which `write` has compared with
// its length. The table lies behind `control` and was written with the same segments. The value
// owns the buffers, does not change them, and lets nobody else.
unsafe impl Chain for BlkRequest {
    const MAX_SEGMENTS: u16 = DATA_SEGMENTS_MAX + 2;
    const KEEPS_TABLE: bool = true;

    #[inline]
    fn table(&self) -> Option<&IndirectTable> {
        self.0.as_ref()?.table.as_ref()
    }

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let slot = self.0.as_deref();
        segments(slot, 0..slot.map_or(0, RequestSlot::readable))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let slot = self.0.as_deref();
        let all = slot.map_or(0..0, |slot| slot.readable()..slot.data_segments() + 2);
        segments(slot, all)
    }
}

/// Some of the segments of a request.
fn segments(
    slot: Option<&RequestSlot>,
    which: Range<u32>,
) -> impl ExactSizeIterator<Item = Segment> {
    which.map(move |index| slot.expect("a request keeps its slot").segment(index))
}

fn bytes(len: u32) -> usize {
    usize::try_from(len).expect("usize is at least 32 bits")
}
