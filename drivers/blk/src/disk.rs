//! The handle by which an application uses a disk: single requests with owned buffers.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vdpa::ids::IdGuard;
use vdpa::ops::OpError;
use virtio::blk::{S, T};
use virtio_bus::VirtioClaim;
use virtq::{DmaBuffer, RequestError, RequestReason, Requests, Used};

use super::error::BlkError;
use super::limits::Limits;
use super::pool::Pool;
use super::request::{BlkRequest, Violation};
use super::slot::RequestSlots;

/// The length of a disk's id (VIRTIO 1.2, 5.2.6).
const ID_LEN: u32 = 20;

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
    /// The disk's name in the device tree, as `blk0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The size of the disk in sectors of 512 bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.0.capacity.load(Ordering::Relaxed)
    }

    /// Whether the disk refuses to be written to.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.0.limits.read_only
    }

    /// The logical block size in bytes: a power of two, at least 512.
    #[must_use]
    pub fn block_size(&self) -> usize {
        to_usize(self.0.limits.block_len)
    }

    /// The most bytes that [`Disk::read`] and [`Disk::write`] take.
    #[must_use]
    pub fn max_transfer(&self) -> usize {
        to_usize(self.0.limits.transfer_max)
    }

    /// Whether the disk has been taken away: every request fails from now on.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.device.check() == Err(OpError::Gone)
    }

    /// A zeroed buffer of `len` bytes for transfers.
    ///
    /// # Errors
    /// [`BlkError::OutOfMemory`], also if `len` is zero; [`BlkError::Gone`], [`BlkError::Broken`].
    pub fn buffer(&self, len: usize) -> Result<DmaBuffer, BlkError> {
        DmaBuffer::new(&self.0.device.dma(), len).map_err(|_| self.0.lack())
    }

    /// Waits until everything that was written before survives a power failure. For a disk without
    /// a cache it always does (VIRTIO 1.2, 5.2.6.2).
    ///
    /// # Errors
    /// [`BlkError`].
    pub async fn flush(&self) -> Result<(), BlkError> {
        if !self.0.limits.has_cache {
            return if self.0.is_stopped() {
                Err(self.0.end())
            } else {
                Ok(())
            };
        }
        let request = self.0.request(T::Flush, None, 0)?;
        let result = self.0.requests.submit(request).await;
        self.0.answer(result).0
    }

    /// The disk's id, by custom its serial number; at most 20 bytes.
    ///
    /// # Errors
    /// [`BlkError::Unsupported`], if the disk has none.
    pub async fn id(&self) -> Result<String, BlkError> {
        let buffer = self.buffer(ID_LEN as usize)?;
        let request = self.0.request(T::GetId, Some(buffer), ID_LEN)?;
        let result = self.0.requests.submit(request).await;
        let (answer, buffer) = self.0.answer(result);
        answer?;
        let bytes = buffer.as_ref().map_or(&[][..], |buffer| &buffer[..]);
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

impl Shared {
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
    fn end(&self) -> BlkError {
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

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("name", &self.0.name)
            .field("sectors", &self.capacity())
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

fn to_usize(len: u32) -> usize {
    usize::try_from(len).expect("usize is at least 32 bits")
}
