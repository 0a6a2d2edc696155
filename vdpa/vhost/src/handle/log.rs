//! The requests about the log of the pages that the device writes.

use alloc::sync::Arc;

use vdpa::device::Attachment;
use vdpa::ops::DirtyLog;

use crate::VhostError;

use super::VhostHandle;

impl VhostHandle {
    /// Lets the device log which pages it writes, by the addresses of its address spaces: what
    /// `VHOST_SET_LOG_BASE` and the feature bit `VHOST_F_LOG_ALL` are to other vhost devices. The
    /// bitmap is memory that the client has mapped in address space 0, in one piece, for reading
    /// and writing; it takes the bits there by itself
    /// ([`DirtyPages::take`](vdpa::dirty::DirtyPages::take)).
    ///
    /// A bit of each page of a ring that the device writes is set when its queue is disabled, the
    /// device is suspended or reset, or the log ends. A reset ends it.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::Unsupported`], if the device keeps no log;
    /// [`VhostError::WrongState`] before `FEATURES_OK`; [`VhostError::Busy`], if it keeps one
    /// already; [`VhostError::Invalid`], if the bitmap is empty, does not start with a page or
    /// reaches beyond the last address; [`VhostError::NotReachable`], if it is not mapped like
    /// that; whatever the device answers.
    pub async fn start_log(&self, log: DirtyLog) -> Result<(), VhostError> {
        let attachment = self.attachment()?;
        // SAFETY: the client has mapped the bitmap: memory that is open, or that it vouches for.
        Ok(unsafe { attachment.start_dirty_log(log) }.await?)
    }

    /// Ends the log. Afterwards the device writes the bitmap no more.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::WrongState`], if there is none, or only a reset can
    /// help; [`VhostError::Timeout`], if the device may still write the bitmap;
    /// [`VhostError::Unsupported`].
    pub async fn stop_log(&self) -> Result<(), VhostError> {
        Ok(self.attachment()?.stop_dirty_log().await?)
    }

    /// Neither starting nor stopping waits for the device, so the client can do it by itself.
    fn attachment(&self) -> Result<Arc<Attachment>, VhostError> {
        self.client.with_owned(|_| Ok(()))?;
        let memory = self.client.memory.lock();
        let memory = memory.as_ref().ok_or(VhostError::HungUp)?;
        Ok(Arc::clone(memory.attachment()))
    }
}
