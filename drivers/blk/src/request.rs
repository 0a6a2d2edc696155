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
/// What the status byte holds until the disk writes it.
const STATUS_UNTOUCHED: u8 = 0xff;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    FromDisk,
    ToDisk,
}

/// The data of a request: the first `len` bytes of a buffer, which the disk sees as segments of at most
/// `segment_max` bytes, which is not zero.
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

/// The forms that requests are written in, one for each that can be with the disk.
#[derive(Debug)]
pub(super) struct Forms(Arc<Pool<Box<Form>>>);

impl Forms {
    /// `count` forms, whose control blocks are one allocation.
    pub(super) fn new(allocator: &Arc<dyn DmaAllocator>, count: usize) -> Result<Self, DmaError> {
        let pool = Arc::new(Pool::new(count));
        for control in DmaBuffer::pool(allocator, count, CONTROL_STRIDE)? {
            pool.keep(Form::new(control, &pool));
        }
        Ok(Self(pool))
    }

    /// A form to write a request in. If all are out, it is made of memory from `allocator`.
    pub(super) fn take(
        &self,
        allocator: impl FnOnce() -> Arc<dyn DmaAllocator>,
    ) -> Result<BlkRequest, DmaError> {
        let form = match self.0.take() {
            Some(form) => form,
            None => Form::new(DmaBuffer::new(&allocator(), CONTROL_STRIDE)?, &self.0),
        };
        Ok(BlkRequest(Some(form)))
    }

    /// Frees those that are here.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

/// The memory of a request.
#[derive(Debug)]
struct Form {
    /// [`CONTROL_LEN`] bytes or more.
    control: DmaBuffer,
    data: Option<Data>,
    /// Of the data.
    readable_segments: u16,
    /// Of the data.
    writable_segments: u16,
    home: Weak<Pool<Box<Self>>>,
}

impl Form {
    fn new(control: DmaBuffer, home: &Arc<Pool<Box<Self>>>) -> Box<Self> {
        Box::new(Self {
            control,
            data: None,
            readable_segments: 0,
            writable_segments: 0,
            home: Arc::downgrade(home),
        })
    }

    fn header(&self) -> Segment {
        Segment::part(&self.control, 0, HEADER_LEN as u32)
    }

    fn status(&self) -> Segment {
        Segment::part(&self.control, HEADER_LEN as u32, 1)
    }

    /// The segment of the data with this index.
    fn data_segment(&self, index: u16) -> Segment {
        let data = self
            .data
            .as_ref()
            .expect("only data is counted in segments");
        let start = u32::from(index) * data.segment_max;
        let len = data.segment_max.min(data.len - start);
        Segment::part(&data.buffer, start, len)
    }
}

/// A request to a disk, with the memory it needs. What is moved is small, and the form goes back to
/// where it came from by itself, whoever drops the request.
#[derive(Debug)]
pub(super) struct BlkRequest(Option<Box<Form>>);

impl BlkRequest {
    /// Writes the request.
    ///
    /// # Panics
    /// If the data's buffer is shorter than said, or its segments are empty or more than a queue takes.
    pub(super) fn write(&mut self, kind: T, sector: u64, data: Option<Data>) {
        let form = self.form_mut();
        let (header, status) = form.control[..CONTROL_LEN].split_at_mut(HEADER_LEN);
        header[..4].copy_from_slice(&u32::from(kind).to_le_bytes());
        header[4..8].fill(0);
        header[8..].copy_from_slice(&sector.to_le_bytes());
        status.fill(STATUS_UNTOUCHED);
        (form.readable_segments, form.writable_segments) = match &data {
            None => (0, 0),
            Some(data) => {
                assert!(
                    bytes(data.len) <= data.buffer.len(),
                    "the data lies in its buffer"
                );
                match data.direction {
                    Direction::ToDisk => (data.segments(), 0),
                    Direction::FromDisk => (0, data.segments()),
                }
            }
        };
        form.data = data;
    }

    /// What the disk answered after it wrote `written` bytes, and the data's buffer.
    pub(super) fn finish(mut self, written: u32) -> Result<(S, Option<DmaBuffer>), Violation> {
        let form = self.form_mut();
        let status = match form.control[HEADER_LEN] {
            STATUS_UNTOUCHED => return Err(Violation::NoStatus),
            // VIRTIO 1.2, 5.2.6: every other value belongs to features that are not negotiated.
            byte => match S::try_from(byte) {
                Ok(status @ (S::Ok | S::Ioerr | S::Unsupp)) => status,
                _ => return Err(Violation::UnknownStatus),
            },
        };
        let data = form.data.take();
        let from_disk = match &data {
            Some(data) if data.direction == Direction::FromDisk => bytes(data.len),
            _ => 0,
        };
        // After a failure it is anybody's guess how much of the data was written.
        if status == S::Ok && bytes(written) != from_disk + 1 {
            return Err(Violation::BadLength);
        }
        Ok((status, data.map(|data| data.buffer)))
    }

    fn form(&self) -> &Form {
        self.0.as_deref().expect("a request keeps its form")
    }

    fn form_mut(&mut self) -> &mut Form {
        self.0.as_deref_mut().expect("a request keeps its form")
    }
}

impl Data {
    fn segments(&self) -> u16 {
        if (1..=self.segment_max).contains(&self.len) {
            // The common case takes no division.
            return 1;
        }
        u16::try_from(self.len.div_ceil(self.segment_max)).expect("the data has few segments")
    }
}

impl Drop for BlkRequest {
    fn drop(&mut self) {
        let Some(mut form) = self.0.take() else {
            return;
        };
        // A request that was given up still has its data.
        form.data = None;
        if let Some(home) = form.home.upgrade() {
            home.keep(form);
        }
    }
}

// SAFETY: The segments are disjoint parts of `control`, which holds `CONTROL_LEN` bytes or `write` would
// have panicked, and consecutive parts of the first `len` bytes of the data's buffer, which `write` has
// compared with its length. The value owns both buffers, does not change them, and lets nobody else.
unsafe impl Chain for BlkRequest {
    const MAX_SEGMENTS: u16 = DATA_SEGMENTS_MAX + 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let form = self.form();
        (0..1 + form.readable_segments).map(|index| match index.checked_sub(1) {
            None => form.header(),
            Some(index) => form.data_segment(index),
        })
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let form = self.form();
        (0..form.writable_segments + 1).map(|index| {
            if index < form.writable_segments {
                form.data_segment(index)
            } else {
                form.status()
            }
        })
    }
}

fn bytes(len: u32) -> usize {
    usize::try_from(len).expect("usize is at least 32 bits")
}
