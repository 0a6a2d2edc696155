//! A chain, as a device side in a test sees it.

use alloc::vec;
use alloc::vec::Vec;

use super::HeapDma;
use crate::Segment;

/// A chain that the driver has made available.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The id to return it by.
    pub head: u16,
    /// How many descriptors of the ring it takes.
    pub descriptors: u16,
    /// What the driver lets the device read, segment after segment.
    pub readable: Vec<Segment>,
    /// What the driver lets the device write.
    pub writable: Vec<Segment>,
}

impl Request {
    /// Adds a segment by its descriptor's flags.
    pub(super) fn push(&mut self, segment: Segment, flags: u16) {
        if flags & 2 != 0 {
            self.writable.push(segment);
        } else {
            assert!(self.writable.is_empty(), "readable segments come first");
            self.readable.push(segment);
        }
    }

    pub(super) fn read(&self, dma: &HeapDma) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in &self.readable {
            let mut part = vec![0; segment.len as usize];
            dma.read(segment.addr, &mut part)
                .expect("a driver lends its own memory");
            bytes.extend(part);
        }
        bytes
    }

    pub(super) fn write(&self, dma: &HeapDma, offset: usize, bytes: &[u8]) {
        let mut skip = offset;
        let mut left = bytes;
        for segment in &self.writable {
            let len = segment.len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let (now, later) = left.split_at(left.len().min(len - skip));
            let addr = segment.addr.offset(skip);
            dma.write(addr, now).expect("a driver lends its own memory");
            (skip, left) = (0, later);
        }
        assert!(
            left.is_empty(),
            "the request has no room for what the test writes"
        );
    }
}
