//! The disk: what it tells of itself, and how it answers requests (VIRTIO 1.2, 5.2).

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};

use vdpa::blk::{self as request, Header, ID_LEN, SECTOR_LEN};
use vdpa::config::blk;
use vduse_linux::{QueueError, QueueMemory, Service};
use virtio::F;
use virtio::blk::{F as BlkF, S, T};
use virtq::device::{Chain, DeviceQueue};

use crate::clear::{DISCARD_SECTORS, RANGE, ToClear, ZERO_SECTORS};

/// The most segments of the data of a request.
pub(crate) const SEGMENTS: u16 = 254;

/// Bytes before the data.
const HEADER: u64 = Header::LEN as u64;
/// The most ranges of a request.
const CLEAR_RANGES: u32 = 16;
/// Bytes that are copied at once.
const PIECE: usize = 128 << 10;

thread_local! {
    /// Where a queue's thread copies data through.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// A disk with an image behind it.
#[derive(Debug)]
pub(crate) struct Disk {
    image: File,
    /// In bytes; whole sectors.
    capacity: u64,
    read_only: bool,
    id: [u8; ID_LEN],
}

/// How a request ends: the status, and how many bytes were written before it.
type Answer = Result<u64, S>;

type Ring = DeviceQueue<QueueMemory>;

impl Disk {
    /// A disk that holds `image`, all of whose whole sectors it has.
    pub(crate) fn new(image: File, read_only: bool, name: &str) -> io::Result<Self> {
        // Others have an end, too, that says nothing.
        let kind = image.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::other("neither a file nor a disk"));
        }
        let capacity = io::Seek::seek(&mut &image, io::SeekFrom::End(0))?;
        let mut id = [0; ID_LEN];
        for (to, from) in id.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(Self {
            image,
            capacity: capacity - capacity % SECTOR_LEN,
            read_only,
            id,
        })
    }

    /// The features of its type.
    pub(crate) fn features(&self) -> BlkF {
        let access = if self.read_only {
            BlkF::RO
        } else {
            BlkF::DISCARD | BlkF::WRITE_ZEROES
        };
        BlkF::SEG_MAX | BlkF::BLK_SIZE | BlkF::FLUSH | BlkF::MQ | access
    }

    /// Its configuration space (VIRTIO 1.2, 5.2.4).
    pub(crate) fn config(&self, queues: u16) -> [u8; blk::SIZE] {
        let mut config = [0; blk::SIZE];
        blk::CAPACITY.put(&mut config, self.capacity / SECTOR_LEN);
        blk::SEG_MAX.put(&mut config, SEGMENTS.into());
        blk::BLK_SIZE.put(&mut config, 512);
        blk::NUM_QUEUES.put(&mut config, queues);
        blk::MAX_DISCARD_SECTORS.put(&mut config, DISCARD_SECTORS);
        blk::MAX_DISCARD_SEG.put(&mut config, CLEAR_RANGES);
        blk::DISCARD_SECTOR_ALIGNMENT.put(&mut config, 8);
        blk::MAX_WRITE_ZEROES_SECTORS.put(&mut config, ZERO_SECTORS);
        blk::MAX_WRITE_ZEROES_SEG.put(&mut config, CLEAR_RANGES);
        blk::WRITE_ZEROES_MAY_UNMAP.put(&mut config, 1);
        config
    }

    /// Does what a chain asks for, which has `room` writable bytes before the status.
    fn answer(&self, ring: &Ring, chain: &Chain, room: u64) -> Answer {
        let mut header = [0; Header::LEN];
        pull(ring, chain, 0, &mut header)?;
        let header = Header::decode(&header);
        match header.request_type() {
            Some(T::In) => self.read(ring, chain, header.sector, room),
            Some(T::Out) => self.write(ring, chain, header.sector),
            Some(T::Flush) => {
                self.image.sync_data().map_err(|_| S::Ioerr)?;
                Ok(0)
            }
            Some(T::GetId) => {
                let length = usize::try_from(room).unwrap_or(ID_LEN).min(ID_LEN);
                push(ring, chain, 0, &self.id[..length])?;
                Ok(length as u64)
            }
            Some(kind @ (T::Discard | T::WriteZeroes)) => self.clear(ring, chain, kind),
            _ => Err(S::Unsupp),
        }
    }

    fn read(&self, ring: &Ring, chain: &Chain, sector: u64, length: u64) -> Answer {
        let start = self.place(sector, length)?;
        each_piece(length, |offset, piece| {
            let read = self.image.read_exact_at(piece, start + offset);
            read.map_err(|_| S::Ioerr)?;
            push(ring, chain, offset, piece)
        })?;
        Ok(length)
    }

    fn write(&self, ring: &Ring, chain: &Chain, sector: u64) -> Answer {
        // The header has been read.
        let length = chain.readable_len() - HEADER;
        let start = self.place(sector, length)?;
        each_piece(length, |offset, piece| {
            pull(ring, chain, HEADER + offset, piece)?;
            let written = self.image.write_all_at(piece, start + offset);
            written.map_err(|_| S::Ioerr)
        })?;
        Ok(0)
    }

    /// Discards ranges, or makes them read as zeroes.
    fn clear(&self, ring: &Ring, chain: &Chain, kind: T) -> Answer {
        let length = chain.readable_len() - HEADER;
        let size = RANGE as u64;
        if !length.is_multiple_of(size) || length / size > CLEAR_RANGES.into() {
            return Err(S::Unsupp);
        }
        for offset in (0..length).step_by(RANGE) {
            let mut bytes = [0; RANGE];
            pull(ring, chain, HEADER + offset, &mut bytes)?;
            let range = ToClear::decode(kind, &bytes)?;
            let length = SECTOR_LEN * u64::from(range.sectors);
            let start = self.place(range.sector, length)?;
            if length > 0 {
                let cleared = range.clear.apply(&self.image, start, length);
                cleared.map_err(|_| S::Ioerr)?;
            }
        }
        Ok(0)
    }

    /// Where `length` bytes from `sector` on lie in the image, if they are whole sectors of it.
    fn place(&self, sector: u64, length: u64) -> Result<u64, S> {
        request::place(sector, length, self.capacity).ok_or(S::Ioerr)
    }
}

impl Service for Disk {
    fn accepts(&self, features: u64) -> bool {
        let needed = (F::VERSION_1 | F::ACCESS_PLATFORM).bits().to_ne();
        u128::from(features) & needed == needed
    }

    fn serve(&self, _queue: u16, ring: &Ring, chain: &Chain) -> u32 {
        // The last byte is the status, wherever the data ends (VIRTIO 1.2, 5.2.6).
        let Some(room) = chain.writable_len().checked_sub(1) else {
            return 0;
        };
        let (data, status) = match self.answer(ring, chain, room) {
            Ok(data) => (data, S::Ok),
            Err(status) => (0, status),
        };
        let told = ring.push_last(chain, status.into());
        let written = if told && data == room { data + 1 } else { data };
        u32::try_from(written).unwrap_or(u32::MAX)
    }

    fn failed(&self, queue: u16, error: &QueueError) {
        // A queue's thread goes on, whether anybody reads it or not.
        let _ = writeln!(io::stderr(), "vduse-blk: queue {queue}: {error}");
    }
}

fn pull(ring: &Ring, chain: &Chain, offset: u64, bytes: &mut [u8]) -> Result<(), S> {
    let whole = ring.pull(chain, offset, bytes) == Ok(bytes.len());
    whole.then_some(()).ok_or(S::Ioerr)
}

fn push(ring: &Ring, chain: &Chain, offset: u64, bytes: &[u8]) -> Result<(), S> {
    let whole = ring.push(chain, offset, bytes) == Ok(bytes.len());
    whole.then_some(()).ok_or(S::Ioerr)
}

/// Hands `work` room for each piece of `length` bytes, with the piece's offset.
fn each_piece(length: u64, mut work: impl FnMut(u64, &mut [u8]) -> Result<(), S>) -> Result<(), S> {
    ROOM.with_borrow_mut(|room| {
        let mut offset = 0;
        while offset < length {
            let left = usize::try_from(length - offset).unwrap_or(PIECE);
            let piece = &mut room[..left.min(PIECE)];
            work(offset, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    })
}
