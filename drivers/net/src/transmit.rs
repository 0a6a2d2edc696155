//! The transmit queue: a pool of buffers, each for a header and one frame (VIRTIO 1.2, 5.1.6.2).
//!
//! Sent buffers are taken back when the pool runs low, without interrupts; only an empty pool waits
//! for one.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::task::Context;

use vdpa::Features;
use virtio::le16;
use virtio::net::{F, Hdr, HdrF};
use virtq::{Broken, DmaBuffer, Readable, RewindError};

use super::checksum::Transport;
use super::counters::Counters;
use super::header::{HEADER_LEN, encode};
use super::wait::{ATTEMPTS, Awaited};

/// After how many frames the device hears of them although more may follow.
const BATCH_MAX: u16 = 32;

/// Who computes the TCP and UDP checksums of sent frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransmitChecksum {
    /// The stack.
    Stack,
    /// The device: `VIRTIO_NET_F_CSUM`.
    Device,
}

impl TransmitChecksum {
    pub(super) fn of(features: Features) -> Self {
        if features.contains(F::CSUM) {
            Self::Device
        } else {
            Self::Stack
        }
    }
}

/// When the device hears of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// At once.
    Immediate,
    /// With [`Transmitter::publish`], or after a number of frames.
    Batched,
}

/// The transmit side of an interface.
#[derive(Debug)]
pub(super) struct Transmitter {
    awaited: Awaited<Readable>,
    checksum: TransmitChecksum,
    frame_max: usize,
    pool: Vec<DmaBuffer>,
    /// Below how many buffers in the pool those sent are taken back.
    low_water: usize,
    unpublished: u16,
    counters: Arc<Counters>,
}

impl Transmitter {
    /// Sends from the buffers of `pool`, each [`Transmitter::buffer_len`] bytes long.
    pub(super) fn new(
        awaited: Awaited<Readable>,
        checksum: TransmitChecksum,
        frame_max: usize,
        pool: Vec<DmaBuffer>,
        counters: Arc<Counters>,
    ) -> Self {
        let low_water = pool.len().div_ceil(2);
        Self {
            awaited,
            checksum,
            frame_max,
            pool,
            low_water,
            unpublished: 0,
            counters,
        }
    }

    /// How long each buffer must be.
    pub(super) fn buffer_len(frame_max: usize) -> usize {
        (HEADER_LEN + frame_max).next_multiple_of(64)
    }

    /// Whether a frame can be sent. If not, `cx` is woken when one may be.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        if self.pool.len() < self.low_water {
            self.reclaim()?;
        }
        for _ in 0..ATTEMPTS {
            if !self.pool.is_empty() {
                return Ok(true);
            }
            self.publish();
            if !self.awaited.poll_used(cx) {
                return Ok(false);
            }
            self.reclaim()?;
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Whether a frame could not be sent for want of buffers.
    #[cfg(feature = "smoltcp")]
    pub(super) fn is_starved(&self) -> bool {
        self.pool.is_empty()
    }

    /// Sends the frame of `len` bytes that `write` makes. A frame that is too long, or that finds no
    /// buffer, is dropped and counted.
    pub(super) fn send<R>(
        &mut self,
        len: usize,
        delivery: Delivery,
        write: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let buffer = if len <= self.frame_max {
            self.pool.pop()
        } else {
            None
        };
        let Some(mut buffer) = buffer else {
            self.counters.tx_too_long.add(1);
            return swallow(len, write);
        };
        let frame = &mut buffer[HEADER_LEN..HEADER_LEN + len];
        let result = write(frame);
        let header = self.finish_checksum(frame);
        buffer[..HEADER_LEN].copy_from_slice(&encode(&header));
        self.submit(buffer, len, delivery);
        result
    }

    /// Starts the queue again, while its device is at rest.
    pub(super) fn rewind(&mut self) -> Result<(), RewindError> {
        self.awaited.rewind()
    }

    /// Tells the device of the frames added since it last heard of any.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.unpublished > 0 {
            self.awaited.queue.kick();
            self.unpublished = 0;
        }
    }

    fn submit(&mut self, buffer: DmaBuffer, len: usize, delivery: Delivery) {
        let total = u32::try_from(HEADER_LEN + len).expect("a frame is at most 64 KiB long");
        match self.awaited.queue.ring.add(Readable { buffer, len: total }) {
            Ok(_) => {
                self.counters.tx_packets.add(1);
                self.counters.tx_bytes.add(len);
                self.unpublished += 1;
                if delivery == Delivery::Immediate || self.unpublished >= BATCH_MAX {
                    self.publish();
                }
            }
            // There are no more buffers than descriptors: the queue is broken.
            Err(error) => {
                self.counters.tx_no_device.add(1);
                self.pool.push(error.chain.buffer);
            }
        }
    }

    /// Leaves the checksum to the device where it can compute it: from a start to the frame's end.
    fn finish_checksum(&self, frame: &mut [u8]) -> Hdr {
        let mut header = Hdr::default();
        if self.checksum == TransmitChecksum::Stack {
            return header;
        }
        let Some(transport) = Transport::find(frame) else {
            return header;
        };
        if transport.end() != frame.len() {
            transport.store_full(frame);
            return header;
        }
        transport.store_pseudo(frame);
        header.flags = HdrF::NEEDS_CSUM;
        header.csum_start = small(transport.start());
        header.csum_offset = small(transport.field());
        header
    }

    /// Takes back the buffers that the device has sent.
    fn reclaim(&mut self) -> Result<(), Broken> {
        while let Some(used) = self.awaited.queue.ring.take()? {
            self.awaited.disarm();
            self.pool.push(used.chain.buffer);
        }
        Ok(())
    }
}

/// Lets the stack make a frame that goes nowhere.
pub(super) fn swallow<R>(len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
    write(&mut vec![0; len])
}

/// A place in the headers of a frame.
fn small(offset: usize) -> le16 {
    le16::from_ne(u16::try_from(offset).expect("headers end below 64 KiB"))
}
