//! A request on its way to the IOMMU and back: what the device reads, and behind it what it writes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use virtq::{Chain, DmaAllocator, DmaBuffer, DmaError, Segment};

use crate::error::Refusal;
use crate::request::{PROBE, REQUEST_MAX, Request, Status, TAIL};

/// What a request takes of memory that does not ask for properties, so that none shares a cache
/// line with the next.
const SLOT: usize = 64;
const _: () = assert!(REQUEST_MAX + TAIL <= SLOT);

/// A request with its memory.
#[derive(Debug)]
pub(crate) struct Message {
    buffer: DmaBuffer,
    request: Segment,
    answer: Segment,
    /// Where the answer begins, and how long the properties are that come before its status.
    start: usize,
    properties: usize,
    /// Which of those that were sent together.
    pub(crate) place: usize,
}

impl Message {
    /// Memory for so many requests.
    pub(crate) fn pool(
        dma: &Arc<dyn DmaAllocator>,
        count: usize,
    ) -> Result<Vec<DmaBuffer>, DmaError> {
        DmaBuffer::pool(dma, count, SLOT)
    }

    /// A request that is answered by its status alone, in memory of the [`pool`](Self::pool).
    pub(crate) fn new(buffer: DmaBuffer, request: Request, place: usize) -> Self {
        Self::with_parts(buffer, request, REQUEST_MAX, 0, place)
    }

    /// A request for the properties of an endpoint, which may take so many bytes.
    pub(crate) fn probe(
        dma: &Arc<dyn DmaAllocator>,
        endpoint: u32,
        properties: u32,
    ) -> Result<Self, DmaError> {
        let properties = usize::try_from(properties).map_err(|_| DmaError::BadSize)?;
        let buffer = DmaBuffer::new(dma, PROBE + properties + TAIL)?;
        let request = Request::Probe { endpoint };
        Ok(Self::with_parts(buffer, request, PROBE, properties, 0))
    }

    fn with_parts(
        mut buffer: DmaBuffer,
        request: Request,
        start: usize,
        properties: usize,
        place: usize,
    ) -> Self {
        let len = request.encode(&mut buffer[..start]);
        let answer = properties + TAIL;
        buffer[start..start + answer].fill(0);
        buffer[start + properties] = Status::UNTOUCHED;
        Self {
            request: Segment::prefix(&buffer, len as u32),
            answer: Segment::part(&buffer, start as u32, answer as u32),
            buffer,
            start,
            properties,
            place,
        }
    }

    /// What the IOMMU answered when it wrote `written` bytes.
    pub(crate) fn outcome(&self, written: u32) -> Result<(), Refusal> {
        let status = self.buffer[self.start + self.properties];
        if written as usize <= self.properties {
            return Err(Refusal::Unanswered);
        }
        match Status::from_byte(status) {
            Some(Status::Ok) => Ok(()),
            Some(status) => Err(Refusal::Status(status)),
            None => Err(Refusal::Unanswered),
        }
    }

    /// What the IOMMU wrote before the status. It may be anything.
    pub(crate) fn properties(&self) -> &[u8] {
        &self.buffer[self.start..][..self.properties]
    }

    pub(crate) fn into_buffer(self) -> DmaBuffer {
        self.buffer
    }
}

// SAFETY: The request is a prefix of at most `start` bytes of the buffer, as it was encoded into no
// more, and the answer begins there and ends inside the buffer, which indexing has checked. The value
// owns the buffer, changes neither while it is in a queue, and lets nobody else.
unsafe impl Chain for Message {
    const MAX_SEGMENTS: u16 = 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::once(self.request)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::once(self.answer)
    }
}
