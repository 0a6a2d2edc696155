//! One request as the disk sees it: header, data, status (VIRTIO 1.2, 5.2.6).

use virtio::blk::{S, T};
use virtq::{Chain, Segment};

use super::pool::Loan;

/// The header: type, reserved, sector.
const HEADER_LEN: usize = 16;
/// The header and, behind it, the status byte.
pub(super) const CONTROL_LEN: usize = HEADER_LEN + 1;
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
    pub(super) buffer: Loan,
    pub(super) len: u32,
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

/// A request to a disk, with the memory it needs.
#[derive(Debug)]
pub(super) struct BlkRequest {
    control: Loan,
    data: Option<Data>,
    segment_max: u32,
    /// Of the data.
    segments: u32,
}

impl BlkRequest {
    /// Writes the request into `control`, a buffer of [`CONTROL_LEN`] bytes. The disk sees the data as
    /// segments of at most `segment_max` bytes, which is not zero.
    ///
    /// # Panics
    /// If a buffer is shorter than said.
    pub(super) fn new(
        kind: T,
        sector: u64,
        mut control: Loan,
        data: Option<Data>,
        segment_max: u32,
    ) -> Self {
        control[0..4].copy_from_slice(&u32::from(kind).to_le_bytes());
        control[4..8].fill(0);
        control[8..HEADER_LEN].copy_from_slice(&sector.to_le_bytes());
        control[HEADER_LEN] = STATUS_UNTOUCHED;
        if let Some(data) = &data {
            assert!(
                bytes(data.len) <= data.buffer.len(),
                "the data lies in its buffer"
            );
        }
        let segment_max = segment_max.max(1);
        let segments = match &data {
            // The common case takes no division.
            Some(data) if (1..=segment_max).contains(&data.len) => 1,
            Some(data) => data.len.div_ceil(segment_max),
            None => 0,
        };
        Self {
            control,
            data,
            segment_max,
            segments,
        }
    }

    /// What the disk answered after it wrote `written` bytes, and the data's buffer.
    pub(super) fn finish(self, written: u32) -> Result<(S, Option<Loan>), Violation> {
        let status = match self.control[HEADER_LEN] {
            STATUS_UNTOUCHED => return Err(Violation::NoStatus),
            // VIRTIO 1.2, 5.2.6: every other value belongs to features that are not negotiated.
            byte => match S::try_from(byte) {
                Ok(status @ (S::Ok | S::Ioerr | S::Unsupp)) => status,
                _ => return Err(Violation::UnknownStatus),
            },
        };
        // After a failure it is anybody's guess how much of the data was written.
        if status == S::Ok && bytes(written) != self.data_len(Direction::FromDisk) + 1 {
            return Err(Violation::BadLength);
        }
        Ok((status, self.data.map(|data| data.buffer)))
    }

    fn data_len(&self, direction: Direction) -> usize {
        let data = self
            .data
            .as_ref()
            .filter(|data| data.direction == direction);
        data.map_or(0, |data| bytes(data.len))
    }

    #[inline]
    fn data_segments(&self, direction: Direction) -> usize {
        match &self.data {
            Some(data) if data.direction == direction => bytes(self.segments),
            _ => 0,
        }
    }

    /// The header, the status or, of the data, the segment of this index.
    fn segment(&self, part: Part) -> Segment {
        let (buffer, start, len) = match (part, &self.data) {
            (Part::Data(index), Some(data)) => {
                let start = index * bytes(self.segment_max);
                let left = bytes(data.len) - start;
                (&data.buffer, start, left.min(bytes(self.segment_max)))
            }
            (Part::Status, _) => (&self.control, HEADER_LEN, 1),
            (Part::Header | Part::Data(_), _) => (&self.control, 0, HEADER_LEN),
        };
        let len = u32::try_from(len).expect("a part of a buffer, which has 32 bits");
        Segment {
            addr: buffer.addr().offset(start),
            len,
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Header,
    Data(usize),
    Status,
}

// SAFETY: The segments are disjoint parts of `control`, which holds `CONTROL_LEN` bytes or `new` would
// have panicked, and consecutive parts of the first `len` bytes of the data's buffer, which `new` has
// compared with its length. The value owns both buffers, does not change them, and lets nobody else.
unsafe impl Chain for BlkRequest {
    const MAX_SEGMENTS: u16 = DATA_SEGMENTS_MAX + 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        (0..1 + self.data_segments(Direction::ToDisk)).map(|index| match index.checked_sub(1) {
            None => self.segment(Part::Header),
            Some(index) => self.segment(Part::Data(index)),
        })
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let data = self.data_segments(Direction::FromDisk);
        (0..data + 1).map(move |index| {
            self.segment(if index < data {
                Part::Data(index)
            } else {
                Part::Status
            })
        })
    }
}

fn bytes(len: u32) -> usize {
    usize::try_from(len).expect("usize is at least 32 bits")
}
