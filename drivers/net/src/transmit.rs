//! The transmit queue: a pool of buffers, each for a header and one frame (VIRTIO 1.2, 5.1.6.2).
//!
//! Sent buffers are taken back when the pool runs low, without interrupts; only an empty pool waits
//! for one.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::task::Context;

use vdpa::Features;
use virtio::net::F;
use virtq::{Broken, DmaBuffer, Readable, RewindError};

use super::checksum::offload;
use super::counters::Counters;
use super::header::HEADER_LEN;
use super::wait::{ATTEMPTS, InterruptQueue};

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

/// The right to send a frame.
#[derive(Debug)]
pub struct TxToken<'a>(pub(super) TxTarget<'a>);

/// Where a sent frame goes.
#[derive(Debug)]
pub(super) enum TxTarget<'a> {
    Device(&'a mut Transmitter, Delivery),
    /// Nowhere: the device is broken or gone. A stack that could not send at all would also stop
    /// its timers, and with them the time-outs that end its connections.
    Nowhere(&'a Counters),
}

impl embassy_net_driver::TxToken for TxToken<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.0 {
            TxTarget::Device(transmitter, delivery) => transmitter.send(len, delivery, f),
            TxTarget::Nowhere(counters) => {
                counters.tx_no_device.add(1);
                swallow(len, f)
            }
        }
    }
}

#[cfg(feature = "smoltcp")]
impl smoltcp::phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        embassy_net_driver::TxToken::consume(self, len, f)
    }
}

/// The transmit side of an interface.
#[derive(Debug)]
pub(super) struct Transmitter {
    awaited: InterruptQueue<Readable>,
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
        awaited: InterruptQueue<Readable>,
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
    #[inline]
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        if self.pool.len() >= self.low_water {
            return Ok(true);
        }
        self.poll_reclaim(cx)
    }

    fn poll_reclaim(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        self.reclaim()?;
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

    /// Sends the frame of `len` bytes that `write` makes. A frame that is too long, or that finds
    /// no buffer, is dropped and counted.
    #[inline]
    fn send<R>(&mut self, len: usize, delivery: Delivery, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let buffer = if len <= self.frame_max {
            self.pool.pop()
        } else {
            None
        };
        let Some(mut buffer) = buffer else {
            self.counters.tx_too_long.add(1);
            return swallow(len, write);
        };
        let total = HEADER_LEN + len;
        let (header, frame) = buffer[..total].split_at_mut(HEADER_LEN);
        let result = write(frame);
        header.fill(0);
        if self.checksum == TransmitChecksum::Device {
            offload(header, frame);
        }
        // A frame is at most 64 KiB long.
        let chain = Readable {
            buffer,
            len: total as u32,
        };
        match self.awaited.queue.ring.add(chain) {
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
#[cold]
fn swallow<R>(len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
    write(&mut vec![0; len])
}
