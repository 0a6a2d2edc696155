//! The memory of a request: its header and status, and the table by which the disk finds all of it
//! (VIRTIO 1.2, 5.2.6).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use virtio::blk::T;
use virtq::{DmaAllocator, DmaBuffer, DmaError, IndirectTable, RingFeatures, Segment};

use super::pool::Pool;

/// The header: type, reserved, sector.
const HEADER_LEN: usize = 16;
/// Where the header says the sector.
pub(super) const SECTOR: usize = 8;
/// Where the status byte lies, behind the header.
pub(super) const STATUS: usize = HEADER_LEN;
/// The header and the status byte.
pub(super) const CONTROL_LEN: usize = HEADER_LEN + 1;
/// What they take of a slot's memory. The table follows.
const CONTROL_ROOM: usize = 32;
/// In how many segments the data of a request may lie. Only disks that limit the size of a segment
/// need more than one.
pub(super) const DATA_SEGMENTS_MAX: u16 = 16;
/// What the status byte holds until the disk writes it.
pub(super) const STATUS_UNTOUCHED: u8 = 0xff;

/// How slots are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotForm {
    pub(super) features: RingFeatures,
    /// The longest segment of data in bytes, not zero.
    pub(super) segment_max: u32,
    /// In how many segments the data of a request lie at most.
    pub(super) data_segments: u16,
}

/// What requests are written in, one slot for each request that can be with the disk.
#[derive(Debug)]
pub(super) struct RequestSlots {
    form: SlotForm,
    pub(super) pool: Arc<Pool<Box<RequestSlot>>>,
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

    /// One more slot, for when all of them are out.
    #[cold]
    pub(super) fn make(
        &self,
        allocator: &Arc<dyn DmaAllocator>,
    ) -> Result<Box<RequestSlot>, DmaError> {
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
pub(super) struct RequestSlot {
    /// [`CONTROL_ROOM`] bytes.
    pub(super) control: DmaBuffer,
    /// Where the disk finds all of the request, if its queue has indirect descriptors.
    pub(super) table: Option<IndirectTable>,
    /// What is requested, as the header says.
    pub(super) kind: T,
    /// The buffer of the data, with how many of its bytes are transferred.
    pub(super) buffer: Option<DmaBuffer>,
    pub(super) len: u32,
    pub(super) segment_max: u32,
    home: Weak<Pool<Box<Self>>>,
}

impl RequestSlot {
    fn new(memory: DmaBuffer, form: &SlotForm, home: &Arc<Pool<Box<Self>>>) -> Box<Self> {
        let (control, table) = memory.split_at(CONTROL_ROOM);
        Box::new(Self {
            control,
            table: IndirectTable::new(table, form.features),
            kind: T::Flush,
            buffer: None,
            len: 0,
            segment_max: form.segment_max,
            home: Arc::downgrade(home),
        })
    }

    /// Writes a request, with the data that lie in the first `len` bytes of the buffer.
    ///
    /// # Panics
    /// If the buffer is shorter.
    #[inline(never)]
    pub(super) fn write(&mut self, kind: T, sector: u64, buffer: Option<DmaBuffer>, len: u32) {
        let room = buffer.as_ref().map_or(0, |buffer| buffer.len());
        assert!(len as usize <= room, "the data lies in its buffer");
        (self.kind, self.buffer, self.len) = (kind, buffer, len);
        let control: &mut [u8; CONTROL_LEN] = self.control.first_chunk_mut().expect("it is longer");
        // The reserved field behind the type is zero.
        control[..SECTOR].copy_from_slice(&u64::from(u32::from(kind)).to_le_bytes());
        control[SECTOR..HEADER_LEN].copy_from_slice(&sector.to_le_bytes());
        control[STATUS] = STATUS_UNTOUCHED;
        let (readable, segments) = (self.readable(), self.segments());
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

    /// How many bytes the disk writes if all goes well. The status is a byte.
    #[inline]
    pub(super) fn writes(&self) -> u32 {
        match self.kind {
            T::In | T::GetId => self.len.saturating_add(1),
            _ => 1,
        }
    }

    /// How many segments the request has: header, data and status.
    pub(super) fn segments(&self) -> u32 {
        self.data_segments() + 2
    }

    /// How many of them the disk reads.
    pub(super) fn readable(&self) -> u32 {
        match self.kind {
            T::In | T::GetId => 1,
            _ => 1 + self.data_segments(),
        }
    }

    pub(super) fn segment(&self, index: u32) -> Segment {
        match (index.checked_sub(1), &self.buffer) {
            (None, _) => Segment::part(&self.control, 0, HEADER_LEN as u32),
            (Some(before), Some(buffer)) if before < self.data_segments() => {
                let start = before * self.segment_max;
                Segment::part(buffer, start, self.segment_max.min(self.len - start))
            }
            _ => Segment::part(&self.control, STATUS as u32, 1),
        }
    }

    /// In how many segments the data lie.
    fn data_segments(&self) -> u32 {
        if self.len <= self.segment_max {
            u32::from(self.len > 0)
        } else {
            self.len.div_ceil(self.segment_max)
        }
    }

    /// Goes back to the other slots. The request was given up and may still have its data.
    #[cold]
    pub(super) fn recall(mut self: Box<Self>) {
        self.buffer = None;
        if let Some(home) = self.home.upgrade() {
            home.keep(self);
        }
    }
}
