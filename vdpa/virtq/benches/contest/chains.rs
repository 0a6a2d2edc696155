//! The chains: one buffer, a block request of three, and sixteen scattered ones.

use std::sync::Arc;

use virtq::{Chain, DmaAllocator, DmaBuffer, Readable, Segment};

/// Bytes in each buffer. Nobody reads or writes them.
pub(super) const BUFFER_LEN: usize = 512;

/// A chain that can be made and knows its length.
pub(super) trait Sample: Chain {
    const BUFFERS: usize;

    fn sample(dma: &Arc<dyn DmaAllocator>) -> Self;
}

impl Sample for Readable {
    const BUFFERS: usize = 1;

    fn sample(dma: &Arc<dyn DmaAllocator>) -> Self {
        Self {
            buffer: buffer(dma),
            len: BUFFER_LEN as u32,
        }
    }
}

/// A block request that reads: header, data, status.
pub(super) struct BlockRead {
    header: [DmaBuffer; 1],
    data_and_status: [DmaBuffer; 2],
}

// SAFETY: the segments are whole buffers that the value owns.
unsafe impl Chain for BlockRead {
    const MAX_SEGMENTS: u16 = 3;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.header.iter().map(Segment::of)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.data_and_status.iter().map(Segment::of)
    }
}

impl Sample for BlockRead {
    const BUFFERS: usize = 3;

    fn sample(dma: &Arc<dyn DmaAllocator>) -> Self {
        Self {
            header: [buffer(dma)],
            data_and_status: [buffer(dma), buffer(dma)],
        }
    }
}

/// The same, kept in place: only a pointer goes into the queue and comes back.
pub(super) struct BoxedBlockRead(Box<BlockRead>);

// SAFETY: the segments are those of the request, which the value owns.
unsafe impl Chain for BoxedBlockRead {
    const MAX_SEGMENTS: u16 = BlockRead::MAX_SEGMENTS;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.0.readable()
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.0.writable()
    }
}

impl Sample for BoxedBlockRead {
    const BUFFERS: usize = 3;

    fn sample(dma: &Arc<dyn DmaAllocator>) -> Self {
        Self(Box::new(BlockRead::sample(dma)))
    }
}

/// Two buffers that the device reads and fourteen that it writes.
pub(super) struct Scattered(Box<[DmaBuffer; 16]>);

// SAFETY: the segments are whole buffers that the value owns.
unsafe impl Chain for Scattered {
    const MAX_SEGMENTS: u16 = 16;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.0[..2].iter().map(Segment::of)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.0[2..].iter().map(Segment::of)
    }
}

impl Sample for Scattered {
    const BUFFERS: usize = 16;

    fn sample(dma: &Arc<dyn DmaAllocator>) -> Self {
        Self(Box::new(std::array::from_fn(|_| buffer(dma))))
    }
}

fn buffer(dma: &Arc<dyn DmaAllocator>) -> DmaBuffer {
    DmaBuffer::new(dma, BUFFER_LEN).expect("memory")
}
