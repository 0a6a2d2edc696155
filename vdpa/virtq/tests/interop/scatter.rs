//! A chain of several buffers, with contents that tell it from every other.

use std::sync::Arc;

use virtq::{Chain, DmaAllocator, DmaBuffer, Segment};

use crate::text::text;

#[derive(Debug)]
pub struct Scatter {
    pub readable: Vec<DmaBuffer>,
    pub writable: Vec<DmaBuffer>,
}

// SAFETY: the segments are whole buffers that the value owns.
unsafe impl Chain for Scatter {
    const MAX_SEGMENTS: u16 = 8;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.readable.iter().map(Segment::of)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.writable.iter().map(Segment::of)
    }
}

impl Scatter {
    /// Buffers of these lengths; those that the device reads hold the text of `serial`.
    pub fn new(
        dma: &Arc<dyn DmaAllocator>,
        serial: u64,
        readable: &[usize],
        writable: &[usize],
    ) -> Self {
        let buffers = |lens: &[usize]| -> Vec<_> {
            lens.iter()
                .map(|&len| DmaBuffer::new(dma, len).expect("memory"))
                .collect()
        };
        let mut scatter = Self {
            readable: buffers(readable),
            writable: buffers(writable),
        };
        let mut text = text(serial);
        for buffer in &mut scatter.readable {
            buffer.fill_with(|| text.next().expect("endless"));
        }
        scatter
    }

    /// What the device has written, up to `len` bytes.
    pub fn written(&self, len: usize) -> Vec<u8> {
        self.writable
            .iter()
            .flat_map(|buffer| buffer.iter().copied())
            .take(len)
            .collect()
    }
}
