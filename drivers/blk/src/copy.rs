//! Transfers of any length between a disk and ordinary memory: cut into pieces, several in flight.

use core::sync::atomic::Ordering;

use embassy_futures::join::join_array;
use spin::Mutex;
use virtio::blk::T;
use virtq::DmaBuffer;

use super::disk::Disk;
use super::error::BlkError;
use super::limits::SECTOR_LEN;

/// The length of the pieces, unless the disk takes less in one request or its blocks are longer.
pub(super) const PIECE_LEN: usize = 64 * 1024;
/// How many pieces of one transfer are in flight.
pub(super) const LANES: usize = 4;

impl Disk {
    /// Fills `bytes` from the disk, from `sector` on. The length is a multiple of the block size;
    /// it may exceed [`Disk::max_transfer`].
    ///
    /// # Errors
    /// [`BlkError`]; what `bytes` holds then is unspecified.
    pub async fn read_into(&self, sector: u64, bytes: &mut [u8]) -> Result<(), BlkError> {
        self.check(sector, bytes.len())?;
        let pieces = Pieces::new(sector, bytes.chunks_mut(self.piece_len()));
        let lane = async || -> Result<(), BlkError> {
            while let Some((sector, piece)) = pieces.next() {
                let bounce = pieces.stop_at_error(self.bounce())?;
                let read = self.transfer(T::In, sector, bounce, piece.len());
                let bounce = pieces.stop_at_error(read.await)?;
                piece.copy_from_slice(&bounce[..piece.len()]);
                self.0.bounce.keep(bounce);
            }
            Ok(())
        };
        join_array([(); LANES].map(|()| lane()))
            .await
            .into_iter()
            .collect()
    }

    /// Writes `bytes` to the disk, from `sector` on. The length is a multiple of the block size; it
    /// may exceed [`Disk::max_transfer`]. As for [`Disk::write`], a flush makes it last.
    ///
    /// # Errors
    /// [`BlkError`]; what the disk holds in the range is unknown then, unless it was not asked at
    /// all.
    pub async fn write_from(&self, sector: u64, bytes: &[u8]) -> Result<(), BlkError> {
        if self.is_read_only() {
            return Err(BlkError::ReadOnly);
        }
        self.check(sector, bytes.len())?;
        let pieces = Pieces::new(sector, bytes.chunks(self.piece_len()));
        let lane = async || -> Result<(), BlkError> {
            while let Some((sector, piece)) = pieces.next() {
                let mut bounce = pieces.stop_at_error(self.bounce())?;
                bounce[..piece.len()].copy_from_slice(piece);
                let write = self.transfer(T::Out, sector, bounce, piece.len());
                let bounce = pieces.stop_at_error(write.await)?;
                self.0.bounce.keep(bounce);
            }
            Ok(())
        };
        join_array([(); LANES].map(|()| lane()))
            .await
            .into_iter()
            .collect()
    }

    /// Checks a range of `len` bytes against the disk as it is now.
    fn check(&self, sector: u64, len: usize) -> Result<(), BlkError> {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        self.0.limits.check(capacity, sector, len)
    }

    /// A buffer for one piece. It is kept for the next unless the piece fails.
    fn bounce(&self) -> Result<DmaBuffer, BlkError> {
        match self.0.bounce.take() {
            Some(bounce) => Ok(bounce),
            None => self.buffer(PIECE_LEN),
        }
    }

    /// A multiple of the block size, because that is a power of two up to [`PIECE_LEN`].
    fn piece_len(&self) -> usize {
        PIECE_LEN.min(self.max_transfer())
    }
}

/// The pieces of a transfer that no lane has taken yet.
struct Pieces<I>(Mutex<Option<Rest<I>>>);

struct Rest<I> {
    sector: u64,
    pieces: I,
}

impl<P: AsRef<[u8]>, I: Iterator<Item = P>> Pieces<I> {
    fn new(sector: u64, pieces: I) -> Self {
        Self(Mutex::new(Some(Rest { sector, pieces })))
    }

    fn next(&self) -> Option<(u64, P)> {
        let mut rest = self.0.lock();
        let rest = rest.as_mut()?;
        let piece = rest.pieces.next()?;
        let sector = rest.sector;
        let sectors = piece.as_ref().len() / usize::try_from(SECTOR_LEN).ok()?;
        rest.sector += u64::try_from(sectors).ok()?;
        Some((sector, piece))
    }

    /// Lets no lane start another piece after an error.
    fn stop_at_error<T>(&self, result: Result<T, BlkError>) -> Result<T, BlkError> {
        if result.is_err() {
            *self.0.lock() = None;
        }
        result
    }
}
