//! Payload: copied out of and into a chain through the translation, or used in place.

use super::chain::Chain;
use super::dirty::DirtyLog;
use super::memory::{Access, Memory, Piece};
use super::pieces::{Pieces, TransferError, whole};
use super::queue::DeviceQueue;
use crate::copy::{copy_in, copy_out};
use crate::{DmaAddr, Segment};

impl<M: Memory, L: DirtyLog> DeviceQueue<M, L> {
    /// Copies what the driver has put into the readable part of a chain, from byte `offset` on.
    /// Returns how many bytes there were, up to the length of `bytes`.
    ///
    /// # Errors
    /// [`TransferError`], with the bytes before the fault copied.
    #[inline(always)]
    pub fn pull(
        &self,
        chain: &Chain,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<usize, TransferError> {
        let (memory, segments) = (&self.host.memory, chain.readable());
        if let Some(piece) = whole(memory, segments, offset, bytes.len(), Access::Read) {
            // SAFETY: as in `Pieces::read`.
            unsafe { copy_out(piece.ptr, bytes) };
            return Ok(bytes.len());
        }
        self.pull_pieces(chain, offset, bytes)
    }

    /// Copies `bytes` into the writable part of a chain, from byte `offset` on. Returns how many
    /// bytes had room.
    ///
    /// # Errors
    /// [`TransferError`], with the bytes before the fault copied.
    #[inline(always)]
    pub fn push(&self, chain: &Chain, offset: u64, bytes: &[u8]) -> Result<usize, TransferError> {
        let (memory, segments) = (&self.host.memory, chain.writable());
        if let Some(piece) = whole(memory, segments, offset, bytes.len(), Access::Write) {
            // SAFETY: as in `Pieces::write`.
            unsafe { copy_in(piece.ptr, bytes) };
            self.host.log.written(piece.addr, piece.len);
            return Ok(bytes.len());
        }
        self.push_pieces(chain, offset, bytes)
    }

    /// Writes the last of the writable bytes of a chain, where many devices have a status. False if
    /// there is none, or it cannot be reached.
    #[inline]
    pub fn push_last(&self, chain: &Chain, byte: u8) -> bool {
        let Some(Segment { addr, len, .. }) = chain.writable().last() else {
            return false;
        };
        // Does not wrap: the chain's segments were checked, and are not empty.
        let addr = DmaAddr(addr.0.wrapping_add(u64::from(len - 1)));
        let Some(ptr) = self.host.memory.contiguous(addr, 1, Access::Write) else {
            return false;
        };
        // SAFETY: as in `Pieces::write`.
        unsafe { copy_in(ptr, &[byte]) };
        self.host.log.written(addr, 1);
        true
    }

    /// [`pull`](Self::pull) from more than one piece.
    #[cold]
    fn pull_pieces(
        &self,
        chain: &Chain,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<usize, TransferError> {
        let (memory, segments) = (&self.host.memory, chain.readable());
        Pieces::new(memory, segments, offset, bytes.len(), Access::Read).read(bytes)
    }

    /// [`push`](Self::push) into more than one piece.
    #[cold]
    fn push_pieces(
        &self,
        chain: &Chain,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, TransferError> {
        let (memory, segments) = (&self.host.memory, chain.writable());
        Pieces::new(memory, segments, offset, bytes.len(), Access::Write)
            .write(bytes, &self.host.log)
    }

    /// The readable part of a chain as it lies on the host, for use in place.
    pub fn readable_pieces<'a>(&'a self, chain: &'a Chain) -> Pieces<'a, M> {
        Pieces::new(
            &self.host.memory,
            chain.readable(),
            0,
            usize::MAX,
            Access::Read,
        )
    }

    /// The writable part of a chain as it lies on the host, for use in place. What is written there
    /// must be told to [`DeviceQueue::log_written`].
    pub fn writable_pieces<'a>(&'a self, chain: &'a Chain) -> Pieces<'a, M> {
        Pieces::new(
            &self.host.memory,
            chain.writable(),
            0,
            usize::MAX,
            Access::Write,
        )
    }

    /// Tells the dirty log that the first `len` bytes of a piece were written in place.
    pub fn log_written(&self, piece: &Piece, len: u32) {
        self.host.log.written(piece.addr, len);
    }
}
