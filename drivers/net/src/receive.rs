//! The receive queue: buffers lent to the device, frames taken from them (VIRTIO 1.2, 5.1.6.3,
//! 5.1.6.4).
//!
//! A frame stays in the buffer that the device wrote, unless it spans several. Everything that the
//! device says is checked: what breaks the protocol breaks the device, what is only a bad frame is
//! dropped and counted.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::Context;

use virtio::net::HdrF;
use virtq::{Broken, DmaBuffer, RewindError, Used, Writable};

use super::checksum::Transport;
use super::counters::Counters;
use super::drop_reason::DropReason;
use super::header::{ETHERNET_LEN, HEADER_LEN, decode};
use super::wait::{ATTEMPTS, InterruptQueue};

/// What decides how the device fills receive buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveConfig {
    /// Whether a frame may span buffers: `VIRTIO_NET_F_MRG_RXBUF`.
    pub(super) mergeable: bool,
    /// Whether the device may leave a checksum unfinished, and the stack does not look at it:
    /// `VIRTIO_NET_F_GUEST_CSUM`.
    pub(super) partial_checksums: bool,
    /// The longest frame in bytes, with the Ethernet header.
    pub(super) frame_max: usize,
}

/// How a device broke the protocol of the receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error(transparent)]
    Ring(#[from] Broken),
    #[error("a received packet is shorter than its header")]
    ShortHeader,
    #[error("a received packet says that it spans more buffers than there are")]
    BufferCount,
    #[error("a received packet spans buffers that were not all used")]
    MissingBuffer,
    #[error("a received packet leaves a gap in one of its buffers")]
    Gap,
}

/// A received frame. Dropped without being consumed, it is offered again.
#[derive(Debug)]
pub struct RxToken<'a>(pub(super) &'a mut Receiver);

impl embassy_net_driver::RxToken for RxToken<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        self.0.consume(f)
    }
}

#[cfg(feature = "smoltcp")]
impl smoltcp::phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.0.consume(|frame| f(frame))
    }
}

/// The receive side of an interface.
#[derive(Debug)]
pub(super) struct Receiver {
    awaited: InterruptQueue<Writable>,
    config: ReceiveConfig,
    /// The frame that the stack gets next.
    frame: Option<Frame>,
    /// Where a frame that spans buffers is put together.
    assembly: Vec<u8>,
    /// Buffers given back to the ring since the device last heard of any.
    unpublished: u16,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Frame {
    /// In the buffer, behind the header, up to this offset.
    InPlace {
        buffer: DmaBuffer,
        end: usize,
    },
    Assembled,
}

impl Receiver {
    /// Fills the queue with `buffers`. The device hears of them with [`Receiver::publish`].
    pub(super) fn new(
        awaited: InterruptQueue<Writable>,
        config: ReceiveConfig,
        buffers: Vec<DmaBuffer>,
        counters: Arc<Counters>,
    ) -> Self {
        // One byte more than a frame: enough to see that one is too long.
        let longest = if config.mergeable {
            config.frame_max + 1
        } else {
            0
        };
        let mut receiver = Self {
            awaited,
            config,
            frame: None,
            assembly: Vec::with_capacity(longest),
            unpublished: 0,
            counters,
        };
        for buffer in buffers {
            receiver.give(buffer);
        }
        receiver
    }

    /// How long each buffer of a queue with `queue_size` entries must be.
    pub(super) fn buffer_len(config: &ReceiveConfig, queue_size: u16) -> usize {
        /// Enough for a full-sized frame of ordinary Ethernet in one buffer.
        const MERGEABLE: usize = 1536;
        let whole = (HEADER_LEN + config.frame_max).next_multiple_of(64);
        if !config.mergeable {
            return whole;
        }
        // Half the queue holds the longest frame.
        let part = whole
            .div_ceil(usize::from(queue_size / 2).max(1))
            .next_multiple_of(64);
        whole.min(part.max(MERGEABLE))
    }

    /// Whether there is a frame to consume. If not, `cx` is woken when there may be one.
    #[inline]
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, Violation> {
        if self.fetch()? {
            return Ok(true);
        }
        self.poll_used(cx)
    }

    fn poll_used(&mut self, cx: &mut Context<'_>) -> Result<bool, Violation> {
        for _ in 0..ATTEMPTS {
            self.publish();
            if !self.awaited.poll_used(cx) {
                return Ok(false);
            }
            if self.fetch()? {
                return Ok(true);
            }
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Hands the frame on and gives its buffer back to the device.
    #[inline]
    fn consume<R>(&mut self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        match self.frame.take() {
            Some(Frame::InPlace { mut buffer, end }) => {
                let result = read(&mut buffer[HEADER_LEN..end]);
                self.give_at_once(buffer);
                result
            }
            Some(Frame::Assembled) => read(&mut self.assembly),
            None => read(&mut []),
        }
    }

    /// Starts the queue again, while its device is at rest.
    pub(super) fn rewind(&mut self) -> Result<(), RewindError> {
        self.awaited.rewind()
    }

    /// Tells the device of the buffers it got back.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.unpublished > 0 {
            self.awaited.queue.kick();
            self.unpublished = 0;
        }
    }

    /// Looks for the next good frame; false if none is there. Looks at no more buffers than the
    /// ring has.
    fn fetch(&mut self) -> Result<bool, Violation> {
        if self.frame.is_some() {
            return Ok(true);
        }
        for _ in 0..self.awaited.queue.ring.size() {
            let Some(Used {
                chain: Writable(buffer),
                written,
                ..
            }) = self.awaited.queue.ring.take()?
            else {
                return Ok(false);
            };
            self.awaited.disarm();
            self.accept(buffer, length(written))?;
            if self.frame.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a frame of a used buffer up to `end` and, if it spans more, of those that follow. A
    /// bad one is dropped.
    #[inline(always)]
    fn accept(&mut self, buffer: DmaBuffer, end: usize) -> Result<(), Violation> {
        let header = decode(&buffer[..end]).ok_or(Violation::ShortHeader)?;
        // Without the feature the field says nothing (VIRTIO 1.2, 5.1.6.4).
        let is_whole = !self.config.mergeable || header.num_buffers.to_ne() == 1;
        if !is_whole {
            let span = header.num_buffers.to_ne();
            // No frame is like that (VIRTIO 1.2, 5.1.6.4), but the ring is in order, and Linux
            // drops it, too.
            if span == 0 {
                self.reject(buffer, DropReason::NoBuffers);
                return Ok(());
            }
            self.assemble(&buffer, end, span)?;
        }
        let frame = if is_whole {
            &buffer[HEADER_LEN..end]
        } else {
            &self.assembly[..]
        };
        match self.judge(&header, frame) {
            Ok(()) if is_whole => {
                self.count(end - HEADER_LEN);
                self.frame = Some(Frame::InPlace { buffer, end });
            }
            Ok(()) => self.accept_assembled(buffer),
            Err(reason) => self.reject(buffer, reason),
        }
        Ok(())
    }

    /// Takes the frame that lies in `assembly`, and gives its first buffer back.
    #[cold]
    fn accept_assembled(&mut self, first: DmaBuffer) {
        self.give(first);
        self.count(self.assembly.len());
        self.frame = Some(Frame::Assembled);
    }

    /// Drops a frame and keeps its buffer.
    #[cold]
    fn reject(&mut self, buffer: DmaBuffer, reason: DropReason) {
        self.give(buffer);
        self.counters.drop_received(reason);
    }

    /// Puts a frame together from its first buffer and the `span - 1` next. They are all there and,
    /// but for the last, all full (VIRTIO 1.2, 5.1.6.4.1). A frame that is too long is cut one byte
    /// behind the limit, so that it is seen to be.
    #[cold]
    fn assemble(&mut self, first: &DmaBuffer, end: usize, span: u16) -> Result<(), Violation> {
        if span > self.awaited.queue.ring.size() {
            return Err(Violation::BufferCount);
        }
        if end != first.len() {
            return Err(Violation::Gap);
        }
        self.assembly.clear();
        self.append(&first[HEADER_LEN..]);
        for left in (0..span - 1).rev() {
            let used = self
                .awaited
                .queue
                .ring
                .take()?
                .ok_or(Violation::MissingBuffer)?;
            let Writable(buffer) = used.chain;
            let end = length(used.written);
            if end == 0 || (left > 0 && end != buffer.len()) {
                return Err(Violation::Gap);
            }
            self.append(&buffer[..end]);
            self.give(buffer);
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = (self.config.frame_max + 1).saturating_sub(self.assembly.len());
        self.assembly
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether the frame may be handed on.
    #[inline(always)]
    fn judge(&self, header: &virtio::net::Hdr, frame: &[u8]) -> Result<(), DropReason> {
        if frame.len() < ETHERNET_LEN {
            return Err(DropReason::TooShort);
        }
        if frame.len() > self.config.frame_max {
            return Err(DropReason::TooLong);
        }
        if header.gso_type != u8::from(virtio::net::HdrGso::None) {
            return Err(DropReason::Segmentation);
        }
        if !self.config.partial_checksums {
            // The flags say nothing then, and the stack verifies.
            return Ok(());
        }
        if header.flags.contains(HdrF::NEEDS_CSUM) {
            // The frame comes from the same machine: only its checksum has not been computed.
            let field =
                usize::from(header.csum_start.to_ne()) + usize::from(header.csum_offset.to_ne());
            return if field + 2 <= frame.len() {
                Ok(())
            } else {
                Err(DropReason::ChecksumPlace)
            };
        }
        if header.flags.contains(HdrF::DATA_VALID) {
            return Ok(());
        }
        // What spans frames cannot be verified here and is handed on.
        match Transport::find(frame) {
            Some(transport) if !transport.verify(frame) => Err(DropReason::Checksum),
            _ => Ok(()),
        }
    }

    fn count(&self, len: usize) {
        self.counters.rx_packets.add(1);
        self.counters.rx_bytes.add(len);
    }

    /// Puts a buffer back into the ring. The device hears of it when half the ring is waiting.
    fn give(&mut self, buffer: DmaBuffer) {
        self.give_at_once(buffer);
    }

    /// The same where frames pass.
    #[inline(always)]
    fn give_at_once(&mut self, buffer: DmaBuffer) {
        // There are no more buffers than descriptors, so this fails in a broken queue alone, which
        // needs no buffers.
        if self.awaited.queue.ring.add(Writable(buffer)).is_ok() {
            self.unpublished += 1;
        }
        if self.unpublished >= self.awaited.queue.ring.size() / 2 {
            self.publish();
        }
    }
}

fn length(written: u32) -> usize {
    usize::try_from(written).expect("usize is at least 32 bits")
}
