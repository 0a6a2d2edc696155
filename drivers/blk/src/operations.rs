//! What a disk says of itself, and its requests without a range.

use alloc::string::String;
use core::fmt;
use core::sync::atomic::Ordering;

use vdpa::ops::OpError;
use virtio::blk::T;
use virtq::DmaBuffer;

use super::disk::Disk;
use super::error::BlkError;

/// The length of a disk's id (VIRTIO 1.2, 5.2.6).
const ID_LEN: u32 = 20;

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
