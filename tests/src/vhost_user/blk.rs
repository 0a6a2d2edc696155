//! The block device itself: what it tells of itself and how it answers a request (VIRTIO 1.2, 5.2).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use vdpa::config::blk;
use virtio::blk::{S, T};
use virtq::device::{Chain, DeviceQueue, Memory};

/// Bytes of a sector, whatever the block size is.
const SECTOR: u64 = 512;

/// Bytes before the data: type, reserved, sector.
const HEADER: u64 = 16;

/// Bytes that are copied at once.
const PIECE: usize = 128 << 10;

/// Data segments of one request.
const SEGMENTS: u16 = 126;

/// The most segments of a chain: those of the data, header and status.
pub(super) const CHAIN_MAX: u16 = SEGMENTS + 2;

/// The length of an identity in bytes.
const ID_BYTES: usize = 20;

/// Whether the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads and writes.
    ReadWrite,
    /// It only reads.
    ReadOnly,
}

/// A disk with a file behind it. Queues on several threads share it.
#[derive(Debug)]
pub struct Disk {
    image: File,
    /// In bytes; whole sectors.
    capacity: u64,
    access: Access,
    id: [u8; ID_BYTES],
    counts: Counts,
}

/// How often each request was answered, well or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Questions for the identity.
    pub ids: u64,
    /// Requests of any other kind, which the disk does not support.
    pub unsupported: u64,
    /// Requests of a known kind that ended with an error.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    ids: AtomicU64,
    unsupported: AtomicU64,
    failed: AtomicU64,
}

/// How a request ends: the status, and how many bytes of data were written for the guest before it.
type Answer = Result<u64, S>;

impl Disk {
    /// A disk that holds `image`, whose length is its capacity.
    ///
    /// # Errors
    ///
    /// If the file's length cannot be found or is no whole number of sectors.
    pub fn new(image: File, access: Access, id: &str) -> io::Result<Self> {
        let capacity = image.metadata()?.len();
        if !capacity.is_multiple_of(SECTOR) {
            return Err(io::Error::other("not a whole number of sectors"));
        }
        let mut bytes = [0; ID_BYTES];
        for (to, from) in bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        Ok(Self {
            image,
            capacity,
            access,
            id: bytes,
            counts: Counts::default(),
        })
    }

    /// What was asked of it so far.
    pub fn requests(&self) -> Requests {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests {
            reads: read(&self.counts.reads),
            writes: read(&self.counts.writes),
            flushes: read(&self.counts.flushes),
            ids: read(&self.counts.ids),
            unsupported: read(&self.counts.unsupported),
            failed: read(&self.counts.failed),
        }
    }

    /// The features of a block device that it offers (VIRTIO 1.2, 5.2.3).
    pub(super) fn features(&self) -> virtio::blk::F {
        use virtio::blk::F;
        let read_only = match self.access {
            Access::ReadWrite => F::empty(),
            Access::ReadOnly => F::RO,
        };
        F::SEG_MAX | F::BLK_SIZE | F::FLUSH | F::MQ | read_only
    }

    /// Its configuration space with `queues` queues (VIRTIO 1.2, 5.2.4).
    pub(super) fn config(&self, queues: u16) -> [u8; 64] {
        let mut config = [0; 64];
        blk::CAPACITY.put(&mut config, self.capacity / SECTOR);
        blk::SEG_MAX.put(&mut config, SEGMENTS.into());
        blk::BLK_SIZE.put(&mut config, 512);
        blk::NUM_QUEUES.put(&mut config, queues);
        config
    }

    /// Does what a chain asks for, and returns how many bytes from the start of its writable part
    /// were written.
    pub(super) fn serve<M: Memory>(&self, queue: &DeviceQueue<M>, chain: &Chain) -> u32 {
        let Some(room) = chain.writable_len().checked_sub(1) else {
            // Not even a status can be given.
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return 0;
        };
        let (data, status) = match self.answer(queue, chain, room) {
            Ok(data) => (data, S::Ok),
            Err(status) => {
                let count = match status {
                    S::Unsupp => &self.counts.unsupported,
                    _ => &self.counts.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
                (0, status)
            }
        };
        // The last byte is the status, wherever the data ends (VIRTIO 1.2, 5.2.6).
        let written = queue.push(chain, room, &[status.into()]);
        match written {
            Ok(1) if data == room => u32::try_from(data + 1).unwrap_or(u32::MAX),
            _ => u32::try_from(data).unwrap_or(u32::MAX),
        }
    }

    fn answer<M: Memory>(&self, queue: &DeviceQueue<M>, chain: &Chain, room: u64) -> Answer {
        let mut header = [0; HEADER as usize];
        if queue.pull(chain, 0, &mut header) != Ok(header.len()) {
            return Err(S::Ioerr);
        }
        let [kind, _reserved] = [0, 4].map(|at| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        });
        let mut sector = [0; 8];
        sector.copy_from_slice(&header[8..]);
        let sector = u64::from_le_bytes(sector);
        let (count, result) = match T::try_from(kind) {
            Ok(T::In) => (&self.counts.reads, self.read(queue, chain, sector, room)),
            Ok(T::Out) => (&self.counts.writes, self.write(queue, chain, sector)),
            Ok(T::Flush) => (&self.counts.flushes, self.flush()),
            Ok(T::GetId) => (&self.counts.ids, self.identify(queue, chain, room)),
            _ => return Err(S::Unsupp),
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn read<M: Memory>(
        &self,
        queue: &DeviceQueue<M>,
        chain: &Chain,
        sector: u64,
        length: u64,
    ) -> Answer {
        let start = self.place(sector, length)?;
        each_piece(length, |offset, piece| {
            let read = self.image.read_exact_at(piece, start + offset);
            read.map_err(|_| S::Ioerr)?;
            match queue.push(chain, offset, piece) {
                Ok(count) if count == piece.len() => Ok(()),
                _ => Err(S::Ioerr),
            }
        })?;
        Ok(length)
    }

    fn write<M: Memory>(&self, queue: &DeviceQueue<M>, chain: &Chain, sector: u64) -> Answer {
        if self.access == Access::ReadOnly {
            return Err(S::Ioerr);
        }
        let length = chain.readable_len() - HEADER;
        let start = self.place(sector, length)?;
        each_piece(length, |offset, piece| {
            match queue.pull(chain, HEADER + offset, piece) {
                Ok(count) if count == piece.len() => {}
                _ => return Err(S::Ioerr),
            }
            let written = self.image.write_all_at(piece, start + offset);
            written.map_err(|_| S::Ioerr)
        })?;
        Ok(0)
    }

    fn flush(&self) -> Answer {
        self.image.sync_data().map_err(|_| S::Ioerr)?;
        Ok(0)
    }

    fn identify<M: Memory>(&self, queue: &DeviceQueue<M>, chain: &Chain, room: u64) -> Answer {
        let length = usize::try_from(room).unwrap_or(ID_BYTES).min(ID_BYTES);
        match queue.push(chain, 0, &self.id[..length]) {
            Ok(count) if count == length => Ok(room.min(ID_BYTES as u64)),
            _ => Err(S::Ioerr),
        }
    }

    /// Where `length` bytes from `sector` on lie in the image, if they are whole sectors of it.
    fn place(&self, sector: u64, length: u64) -> Result<u64, S> {
        let start = sector.checked_mul(SECTOR).ok_or(S::Ioerr)?;
        let end = start.checked_add(length).ok_or(S::Ioerr)?;
        if end > self.capacity || !length.is_multiple_of(SECTOR) {
            return Err(S::Ioerr);
        }
        Ok(start)
    }
}

/// Hands `work` room for each piece of `length` bytes, with the piece's offset.
fn each_piece(length: u64, mut work: impl FnMut(u64, &mut [u8]) -> Result<(), S>) -> Result<(), S> {
    let piece = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
    let mut room = vec![0; piece];
    let mut offset = 0;
    while offset < length {
        let left = usize::try_from(length - offset).unwrap_or(PIECE);
        let piece = &mut room[..left.min(PIECE)];
        work(offset, piece)?;
        offset += piece.len() as u64;
    }
    Ok(())
}
