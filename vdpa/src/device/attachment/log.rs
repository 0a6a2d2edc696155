//! The log of the pages that a device writes: who may have one, and how long its memory lives.
//!
//! The device logs what it writes into buffers. What it writes into the rings is known here: the
//! pages are marked when a queue, or the device, has come to rest, and named to a reader of the log
//! before that.

use alloc::vec::Vec;

use virtq::DmaAddr;

use crate::dirty::{DirtyPages, LogError, PAGE_SIZE, pages};
use crate::iotlb::{Iotlb, IovaRange, Permission, Target};
use crate::ops::{Abilities, Backing, DirtyLog, OpError};

use super::super::VdpaDevice;
use super::Attachment;

/// A log that a device keeps.
#[derive(Clone)]
pub(super) struct Log {
    /// The bitmap, kept alive until the device writes it no more.
    bitmap: Backing,
    /// Its length in bytes.
    len: u64,
}

impl Attachment {
    /// Lets the device log which pages it writes, in whichever address space, until the log is
    /// stopped or the device is reset. The bitmap lies where the device reaches it: mapped for
    /// reading and writing in one piece of the first address space, and nothing else lies there.
    /// Its memory lives at least as long as the log; a caller that unmaps it before takes it away
    /// from the device.
    ///
    /// Writes to the rings are marked, too: when their queue is stopped, the device is suspended or
    /// reset, or the log is stopped.
    ///
    /// # Errors
    /// [`LogError`].
    ///
    /// # Safety
    /// No buffer that a program has lies in the bitmap, until the log has ended.
    pub async unsafe fn start_dirty_log(&self, log: DirtyLog) -> Result<(), LogError> {
        let _turn = self.device.turn.lock().await;
        self.check_log()?;
        self.device.session.lock().check_log()?;
        self.lease.with_holding(|holding| {
            let [space, ..] = &holding.spaces[..] else {
                return Err(OpError::OutOfRange.into());
            };
            if holding.log.is_some() {
                return Err(LogError::Running);
            }
            let started = Log::find(log, space.table())?;
            // SAFETY: the caller vouches for the bitmap.
            unsafe { self.device.ops.start_dirty_log(log) }?;
            holding.log = Some(started);
            Ok(())
        })
    }

    /// Ends the log. What has been logged until then stays in the bitmap, where the caller reads
    /// it.
    ///
    /// # Errors
    /// [`LogError`]; if the device may still write the bitmap, its memory is kept until the next
    /// reset.
    pub async fn stop_dirty_log(&self) -> Result<(), LogError> {
        let _turn = self.device.turn.lock().await;
        self.check_log()?;
        self.lease
            .with_holding(|holding| holding.log().map(|_| ()))?;
        if self.device.is_lost() {
            return Err(OpError::WrongState.into());
        }
        self.device.ops.stop_dirty_log()?;
        self.device.mark_rings(None);
        drop(self.lease.take_log());
        Ok(())
    }

    /// Takes what has been logged since the last time, and adds it to a set. A queue in use counts
    /// as written, as far as the device writes into its rings.
    ///
    /// # Errors
    /// [`LogError::NotRunning`]; [`OpError::NotOwner`].
    pub fn take_dirty_pages(&self, set: &mut DirtyPages) -> Result<(), LogError> {
        let Log { bitmap, len } = self.lease.with_holding(|holding| holding.log().cloned())?;
        // SAFETY: the owner has lent the bitmap to the device for as long as there is a log.
        let taken = unsafe { set.take_lent(&bitmap.memory, bitmap.offset, len) };
        taken.map_err(|_| LogError::NotMapped)?;
        // Beyond these pages there is no log.
        let end = len.saturating_mul(8).saturating_mul(PAGE_SIZE);
        let mut rings = Vec::new();
        let session = self.device.session.lock();
        session.written(None, |area| rings.push(area));
        drop(session);
        for (addr, bytes) in rings {
            set.insert(addr, bytes.min(end.saturating_sub(addr.0)));
        }
        Ok(())
    }

    fn check_log(&self) -> Result<(), OpError> {
        self.usable()?;
        if self.device.abilities().contains(Abilities::DIRTY_LOG) {
            Ok(())
        } else {
            Err(OpError::Unsupported)
        }
    }
}

impl VdpaDevice {
    /// A queue has come to rest, or all of them have: marks what has been written of the rings.
    pub(in crate::device) fn mark_rings(&self, queue: Option<u16>) {
        let Some(lease) = self.owner_slot.lease() else {
            return;
        };
        let marked = lease.with_holding(|holding| {
            let log = holding.log()?;
            let session = self.session.lock();
            session.written(queue, |(addr, len)| log.mark(addr, len));
            Ok::<_, LogError>(())
        });
        // Without a log there is nothing to mark.
        let _ = marked;
    }
}

impl Log {
    /// Finds the memory of a bitmap.
    fn find(log: DirtyLog, table: &Iotlb<Backing>) -> Result<Self, LogError> {
        let DirtyLog { base, len } = log;
        let range = IovaRange::new(base.0, len).map_err(|_| LogError::BadRange)?;
        if !base.0.is_multiple_of(PAGE_SIZE) {
            return Err(LogError::BadRange);
        }
        let mapping = table.translate(range.first(), Permission::all());
        let mapping = mapping.map_err(|_| LogError::NotMapped)?;
        if !mapping.range.contains(range) {
            return Err(LogError::NotMapped);
        }
        let inside = range.first() - mapping.range.first();
        let bitmap = mapping.target.advance(inside);
        Ok(Self { bitmap, len })
    }

    /// Sets the bits of the pages of some bytes, as far as there are any.
    fn mark(&self, addr: DmaAddr, len: u64) {
        let Backing { memory, offset } = &self.bitmap;
        for page in pages(addr, len) {
            let place = page / 8;
            if place >= self.len {
                return;
            }
            // SAFETY: as for `take_dirty_pages`. The byte lies in the bitmap, which lies in the
            // memory.
            let _ = unsafe { memory.set_lent_bits(offset + place, 1 << (page % 8)) };
        }
    }
}
