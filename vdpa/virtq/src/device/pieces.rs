//! The host's memory behind the segments of a chain, piece by piece.

use core::slice;

use super::dirty::DirtyLog;
use super::memory::{Access, Fault, Memory, Piece};
use crate::copy::{copy_in, copy_out};
use crate::{DmaAddr, Segment};

/// A copy that ended at memory which cannot be reached. The queue goes on: how a device answers a
/// request with such a buffer is up to its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after {done} bytes: {fault}")]
pub struct TransferError {
    /// How many bytes were copied before.
    pub done: usize,
    /// What is wrong with the next one.
    pub fault: Fault,
}

/// The `wanted` bytes from byte `offset` of the segments on, if they can be reached and lie in one
/// piece, as they mostly do.
#[inline(always)]
pub(super) fn whole<M: Memory>(
    memory: &M,
    segments: &[Segment],
    offset: u64,
    wanted: usize,
    access: Access,
) -> Option<Piece> {
    let wanted = u32::try_from(wanted).ok().filter(|&wanted| wanted > 0)?;
    let mut skip = offset;
    for &Segment { addr, len, .. } in segments {
        let len = u64::from(len);
        if skip < len {
            if u64::from(wanted) > len - skip {
                return None;
            }
            // Does not wrap: the chain's segments were checked.
            let addr = DmaAddr(addr.0.wrapping_add(skip));
            let ptr = memory.contiguous(addr, wanted, access)?;
            return Some(Piece {
                addr,
                ptr,
                len: wanted,
            });
        }
        skip -= len;
    }
    None
}

/// The host's memory behind some segments, piece by piece. Ends after the first fault.
#[derive(Debug)]
pub struct Pieces<'a, M> {
    memory: &'a M,
    segments: slice::Iter<'a, Segment>,
    /// What is left of the segment at hand.
    addr: DmaAddr,
    len: u32,
    /// How many bytes are still wanted.
    wanted: usize,
    access: Access,
}

impl<'a, M: Memory> Pieces<'a, M> {
    /// Up to `wanted` bytes from byte `offset` of the segments on.
    #[inline]
    pub(super) fn new(
        memory: &'a M,
        segments: &'a [Segment],
        offset: u64,
        wanted: usize,
        access: Access,
    ) -> Self {
        let (addr, len) = (DmaAddr(0), 0);
        let mut pieces = Self {
            memory,
            segments: segments.iter(),
            addr,
            len,
            wanted,
            access,
        };
        let mut skip = offset;
        for segment in pieces.segments.by_ref() {
            let len = u64::from(segment.len);
            if let Some(left) = len.checked_sub(skip).filter(|&left| left > 0) {
                // Does not wrap: the chain's segments were checked.
                pieces.addr = DmaAddr(segment.addr.0.wrapping_add(skip));
                pieces.len = u32::try_from(left).expect("part of a 32-bit length");
                break;
            }
            skip -= len;
        }
        pieces
    }

    /// Copies out of the pieces.
    pub(super) fn read(self, bytes: &mut [u8]) -> Result<usize, TransferError> {
        let mut done = 0;
        for piece in self {
            let piece = piece.map_err(|fault| TransferError { done, fault })?;
            let to = &mut bytes[done..][..piece.len as usize];
            // SAFETY: the piece is valid for reads of its length, and apart from memory of Rust.
            unsafe { copy_out(piece.ptr, to) };
            done += to.len();
        }
        Ok(done)
    }

    /// Copies into the pieces, and tells the log.
    pub(super) fn write<L: DirtyLog>(self, bytes: &[u8], log: &L) -> Result<usize, TransferError> {
        let mut done = 0;
        for piece in self {
            let piece = piece.map_err(|fault| TransferError { done, fault })?;
            let from = &bytes[done..][..piece.len as usize];
            // SAFETY: the piece is valid for writes of its length, and apart from memory of Rust.
            unsafe { copy_in(piece.ptr, from) };
            log.written(piece.addr, piece.len);
            done += from.len();
        }
        Ok(done)
    }
}

impl<M: Memory> Iterator for Pieces<'_, M> {
    type Item = Result<Piece, Fault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.wanted == 0 {
            return None;
        }
        if self.len == 0 {
            let Segment { addr, len, .. } = *self.segments.next()?;
            (self.addr, self.len) = (addr, len);
        }
        let len = u32::try_from(self.wanted).unwrap_or(u32::MAX).min(self.len);
        let piece = self.memory.translate(self.addr, len, self.access);
        match piece {
            Ok(piece) => {
                // Wraps to 0 behind the last byte of the address space, where no byte follows.
                self.addr = DmaAddr(self.addr.0.wrapping_add(u64::from(piece.len)));
                self.len -= piece.len;
                self.wanted -= piece.len as usize;
            }
            Err(_) => self.wanted = 0,
        }
        Some(piece)
    }
}
