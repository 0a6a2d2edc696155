//! A disk, and its requests on their way to the device and back (VIRTIO 1.2, 5.2.6).
//!
//! A request is written in a [slot](super::slot). What else a disk does is in
//! [`operations`](super::operations).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, ready};

use vdpa::ids::IdGuard;
use vdpa::ops::OpError;
use virtio::blk::{S, T};
use virtio_bus::VirtioClaim;
use virtq::{
    Chain, DmaBuffer, IndirectTable, RequestError, RequestReason, Requests, Segment, Submission,
    Used,
};

use super::error::{BlkError, Violation, failure};
use super::limits::{Limits, SECTOR_LEN};
use super::pool::Pool;
use super::slot::{DATA_SEGMENTS_MAX, RequestSlot, RequestSlots, SECTOR, STATUS, STATUS_UNTOUCHED};

/// A disk.
///
/// Any number of tasks may use it at once, through as many clones as they like; the requests are in
/// flight together and complete in any order. Dropping the future of a request gives the request
/// up: its buffer is freed when the disk returns it, and whether the disk has carried it out is
/// unknown.
///
/// Positions and capacities are in sectors of 512 bytes, and whole blocks of [`Disk::block_size`]
/// bytes are transferred.
#[derive(Clone)]
pub struct Disk(pub(super) Arc<Shared>);

/// What all handles of a disk share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) device: VirtioClaim,
    pub(super) requests: Requests<BlkRequest>,
    pub(super) limits: Limits,
    /// In sectors. The disk may change it.
    pub(super) capacity: AtomicU64,
    pub(super) slots: RequestSlots,
    /// Where data goes that is copied to or from the caller's memory.
    pub(super) bounce: Pool<DmaBuffer>,
    pub(super) stopped: AtomicBool,
    /// The number in the name.
    pub(super) _id: IdGuard,
}

impl Disk {
    /// Fills the buffer from the disk, from `sector` on.
    ///
    /// # Errors
    /// [`BlkError`]; the buffer is freed then.
    #[inline]
    pub fn read(&self, sector: u64, buffer: DmaBuffer) -> Transfer<'_> {
        let len = buffer.len();
        self.transfer(T::In, sector, buffer, len)
    }

    /// Writes the buffer to the disk, from `sector` on. What is written survives a power failure
    /// only after a [`Disk::flush`].
    ///
    /// # Errors
    /// [`BlkError`]; the buffer is freed then, and what the disk holds in that range is unknown
    /// unless the disk was not asked at all.
    #[inline]
    pub fn write(&self, sector: u64, buffer: DmaBuffer) -> Transfer<'_> {
        let len = buffer.len();
        self.transfer(T::Out, sector, buffer, len)
    }

    /// Transfers the first `len` bytes of a buffer: [`T::In`] from the disk, or [`T::Out`] to it.
    ///
    /// # Panics
    /// If the buffer is shorter.
    #[inline]
    pub(super) fn transfer(
        &self,
        kind: T,
        sector: u64,
        buffer: DmaBuffer,
        len: usize,
    ) -> Transfer<'_> {
        let shared = &*self.0;
        let request = 'request: {
            if shared.limits.read_only && kind == T::Out {
                break 'request Err(BlkError::ReadOnly);
            }
            let capacity = shared.capacity.load(Ordering::Relaxed);
            if let Err(error) = shared.limits.check(capacity, sector, len) {
                break 'request Err(error);
            }
            let len = match u32::try_from(len) {
                Ok(len) if len <= shared.limits.transfer_max => len,
                _ => break 'request Err(BlkError::TooLarge),
            };
            // The slot that came back last. Another processor may have borrowed all of them.
            let free = shared.slots.pool.free.try_borrow_mut();
            let mut slot = match free.ok().and_then(|mut free| free.pop()) {
                Some(slot) => slot,
                None => match shared.more_slots() {
                    Ok(slot) => slot,
                    Err(error) => break 'request Err(error),
                },
            };
            // Mostly it was a request of this kind with one segment of data, too: the sector, the
            // status and the entry of the data are all that differs.
            let had_one = 0 < slot.len && slot.len <= slot.segment_max;
            let is_alike = slot.kind == kind && had_one && len <= slot.segment_max;
            if is_alike
                && let Some(table) = &mut slot.table
                && table.replace(1, &buffer, len)
            {
                let control = &mut *slot.control;
                control[SECTOR..STATUS].copy_from_slice(&sector.to_le_bytes());
                control[STATUS] = STATUS_UNTOUCHED;
                (slot.buffer, slot.len) = (Some(buffer), len);
            } else {
                slot.write(kind, sector, Some(buffer), len);
            }
            Ok(Some(BlkRequest(Some(slot))))
        };
        Transfer {
            shared,
            request,
            submission: Submission::default(),
        }
    }
}

/// The future of [`Disk::read`] and [`Disk::write`]: the buffer, when the disk has answered.
#[must_use = "the disk gets the request when the future is polled"]
pub struct Transfer<'a> {
    shared: &'a Shared,
    /// Nothing once the disk has it, or why the disk does not get it.
    request: Result<Option<BlkRequest>, BlkError>,
    submission: Submission,
}

impl Future for Transfer<'_> {
    type Output = Result<DmaBuffer, BlkError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            shared,
            request,
            submission,
        } = &mut *self;
        let request = match request {
            Ok(request) => request,
            Err(error) => return Poll::Ready(Err(*error)),
        };
        let result = ready!(shared.requests.poll_submit(request, submission, cx));
        match shared.answer(result) {
            (Ok(()), Some(buffer)) => Poll::Ready(Ok(buffer)),
            (Ok(()), None) => Poll::Ready(Err(BlkError::Broken)),
            (Err(error), _) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Transfer<'_> {
    #[inline]
    fn drop(&mut self) {
        self.shared.requests.give_up(&mut self.submission);
    }
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").finish_non_exhaustive()
    }
}

impl Limits {
    /// Checks a range of `len` bytes against a disk of `capacity` sectors.
    #[inline]
    pub(super) fn check(&self, capacity: u64, sector: u64, len: usize) -> Result<(), BlkError> {
        let len = u64::try_from(len).map_err(|_| BlkError::OutOfRange)?;
        // The length of a block is a power of two.
        let inside_block = u64::from(self.block_len - 1);
        let sector_len = u64::from(SECTOR_LEN);
        if len & inside_block != 0 || sector & (inside_block / sector_len) != 0 {
            return Err(BlkError::Unaligned);
        }
        match sector.checked_add(len / sector_len) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(BlkError::OutOfRange),
        }
    }
}

impl Shared {
    /// A request without a range, with a buffer of `len` bytes if it has data.
    pub(super) fn request(
        &self,
        kind: T,
        buffer: Option<DmaBuffer>,
        len: u32,
    ) -> Result<BlkRequest, BlkError> {
        let mut slot = match self.slots.pool.take() {
            Some(slot) => slot,
            None => self.more_slots()?,
        };
        slot.write(kind, 0, buffer, len);
        Ok(BlkRequest(Some(slot)))
    }

    #[cold]
    fn more_slots(&self) -> Result<Box<RequestSlot>, BlkError> {
        let slot = self.slots.make(&self.device.dma());
        slot.map_err(|_| self.lack())
    }

    /// Ends every request, present and future.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.requests.stop();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// What has become of a request, and its buffer.
    #[inline]
    pub(super) fn answer(
        &self,
        result: Result<Used<BlkRequest>, RequestError<BlkRequest>>,
    ) -> (Result<(), BlkError>, Option<DmaBuffer>) {
        let used = match result {
            Ok(used) => used,
            Err(error) => return (Err(self.explain(error.reason)), None),
        };
        match used.chain.finish(used.written, &self.slots) {
            (Ok(S::Ok), buffer) => (Ok(()), buffer),
            (answer, _) => (Err(self.fail(answer)), None),
        }
    }

    /// What a request that was not carried out has failed of.
    #[cold]
    fn fail(&self, answer: Result<S, Violation>) -> BlkError {
        match answer {
            Ok(S::Unsupp) => BlkError::Unsupported,
            Ok(_) => BlkError::Io,
            Err(violation) => self.mark_broken(violation),
        }
    }

    fn mark_broken(&self, violation: Violation) -> BlkError {
        log::error!("{}: {violation}", self.name);
        self.device.mark_broken();
        self.stop();
        BlkError::Broken
    }

    /// Why the disk takes no more requests.
    pub(super) fn end(&self) -> BlkError {
        match self.device.check() {
            Err(OpError::Broken) => BlkError::Broken,
            _ => BlkError::Gone,
        }
    }

    /// Why there is no memory: none is made reachable for a disk that is gone.
    pub(super) fn lack(&self) -> BlkError {
        match self.device.check() {
            Ok(()) => BlkError::OutOfMemory,
            Err(_) => self.end(),
        }
    }

    fn explain(&self, reason: RequestReason) -> BlkError {
        match reason {
            RequestReason::Stopped => self.end(),
            RequestReason::Broken(_) => BlkError::Broken,
            RequestReason::TooLong | RequestReason::Empty | RequestReason::Foreign => {
                BlkError::TooLarge
            }
        }
    }
}

/// A request to a disk, with the memory it needs. What is moved is small. The memory goes back to
/// where it came from when the request is [finished](Self::finish), and also if it is dropped.
#[derive(Debug)]
pub(super) struct BlkRequest(Option<Box<RequestSlot>>);

impl BlkRequest {
    /// What the disk answered after it wrote `written` bytes, and the data's buffer. The rest goes
    /// back to `slots`.
    #[inline]
    pub(super) fn finish(
        mut self,
        written: u32,
        slots: &RequestSlots,
    ) -> (Result<S, Violation>, Option<DmaBuffer>) {
        let mut slot = self.0.take().expect("a request keeps its slot");
        let (buffer, writes) = (slot.buffer.take(), slot.writes());
        let status = slot.control[STATUS];
        slots.pool.keep(slot);
        // After a failure it is anybody's guess how much of the data was written.
        let answer = if status == u8::from(S::Ok) && written == writes {
            Ok(S::Ok)
        } else {
            failure(status)
        };
        (answer, buffer)
    }
}

impl Drop for BlkRequest {
    fn drop(&mut self) {
        // Not of a request that is finished.
        if let Some(slot) = self.0.take() {
            slot.recall();
        }
    }
}

// SAFETY: The segments are disjoint parts of `control`, which holds `CONTROL_ROOM` bytes, and
// consecutive parts of the first `len` bytes of the data's buffer: who writes a slot, or replaces
// the data in its table, has compared its length. The table lies behind `control` and was written
// with the same segments. The value owns the buffers, does
// not change them, and lets nobody else.
unsafe impl Chain for BlkRequest {
    const MAX_SEGMENTS: u16 = DATA_SEGMENTS_MAX + 2;
    const KEEPS_TABLE: bool = true;

    #[inline]
    fn table(&self) -> Option<&IndirectTable> {
        self.0.as_ref()?.table.as_ref()
    }

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let slot = self.0.as_deref();
        segments(slot, 0..slot.map_or(0, RequestSlot::readable))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let slot = self.0.as_deref();
        segments(
            slot,
            slot.map_or(0..0, |slot| slot.readable()..slot.segments()),
        )
    }
}

/// Some of the segments of a request.
fn segments(
    slot: Option<&RequestSlot>,
    which: Range<u32>,
) -> impl ExactSizeIterator<Item = Segment> {
    which.map(move |index| slot.expect("a request keeps its slot").segment(index))
}
