//! Sends a part of a file: the next piece is read from the disk while the last one goes out.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use embassy_futures::join::join;
use hadris_fs::Extent;
use kernel::embassy_net::tcp::TcpSocket;
use kernel::log::warn;
use virtio_blk::BlkError;
use virtq::DmaBuffer;
use web::pieces::{Piece, first_piece};
use web::volume::{File, VolumeError};

use crate::files::Files;
use crate::socket::{Broken, write_all};

/// Why a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Volume(#[from] VolumeError),
    #[error("{0}")]
    Disk(#[from] BlkError),
}

/// A part of a file, of which the first piece has been read.
pub(crate) struct Download {
    reader: Reader,
    first: Option<Read>,
    length: u64,
}

/// Bytes of the file, in a buffer that may hold others around them.
struct Read {
    buffer: DmaBuffer,
    wanted: Range<usize>,
}

impl Download {
    /// Reads the first piece of the bytes `range` of `file`, so that a disk that does not answer,
    /// or a file that is damaged, is noticed before a client is promised anything.
    pub(crate) async fn start(
        files: Rc<Files>,
        file: File,
        range: Range<u64>,
        piece: usize,
    ) -> Result<Self, ReadError> {
        let length = range.end.saturating_sub(range.start);
        files.volume.check(&file).await?;
        let mut reader = Reader {
            files,
            file,
            range,
            extents: Vec::new(),
            piece,
            spare: None,
        };
        let first = reader.next().await?;
        Ok(Self {
            reader,
            first,
            length,
        })
    }

    /// The number of bytes that will be sent.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Writes the bytes, and calls `count` with the number of each piece that went out.
    pub(crate) async fn send(
        self,
        socket: &mut TcpSocket<'_>,
        count: impl Fn(usize),
    ) -> Result<(), Broken> {
        let Self {
            mut reader, first, ..
        } = self;
        let mut ready = first;
        while let Some(Read { buffer, wanted }) = ready {
            let bytes = &buffer[wanted];
            let (written, next) = join(write_all(socket, bytes), reader.next()).await;
            written?;
            count(bytes.len());
            reader.spare = Some(buffer);
            ready = match next {
                Ok(next) => next,
                Err(error) => {
                    let disk = reader.files.disk.name();
                    warn!("site: {disk}: a download was cut short: {error}");
                    return Err(Broken::Incomplete);
                }
            };
        }
        Ok(())
    }
}

/// Reads a part of a file piece by piece.
struct Reader {
    files: Rc<Files>,
    file: File,
    /// What is still to be read.
    range: Range<u64>,
    /// Where the bytes at its start lie, and some that follow.
    extents: Vec<Extent>,
    /// How much is read at once, in bytes. Two such buffers are in use.
    piece: usize,
    /// A buffer that is not in use.
    spare: Option<DmaBuffer>,
}

impl Reader {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Read>, ReadError> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let Piece {
            sector,
            length,
            wanted,
        } = self.next_piece().await?;
        let buffer = self.buffer(length)?;
        let buffer = self
            .files
            .disk
            .read(self.files.first_sector + sector, buffer)
            .await?;
        let length = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
        self.range.start = self.range.start.saturating_add(length);
        Ok(Some(Read { buffer, wanted }))
    }

    async fn next_piece(&mut self) -> Result<Piece, ReadError> {
        if let Some(piece) = self.known_piece() {
            return Ok(piece);
        }
        self.extents = self
            .files
            .volume
            .extents(&mut self.file, self.range.start)
            .await?;
        self.known_piece()
            .ok_or(ReadError::Volume(VolumeError::Damaged))
    }

    fn known_piece(&self) -> Option<Piece> {
        let disk = &self.files.disk;
        let (block, limit) = (disk.block_size(), self.piece.min(disk.max_transfer()));
        self.extents
            .iter()
            .find_map(|extent| first_piece(extent, &self.range, block, limit))
    }

    fn buffer(&mut self, length: usize) -> Result<DmaBuffer, BlkError> {
        match self.spare.take() {
            Some(buffer) if buffer.len() == length => Ok(buffer),
            _ => self.files.disk.buffer(length),
        }
    }
}
