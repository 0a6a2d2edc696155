//! The block function: one request from its header to its status.
//!
//! Source: VIRTIO 1.2, 5.2.6.

use virtio::blk::{F, S, T};
use virtq::device::Chain;

use crate::engine::{CHAIN_MAX, Engine};
use crate::pages::Pages;
use crate::plan::{Plan, bits};
use crate::storage::{ID_BYTES, Storage};
use crate::violations::Violations;

const SECTOR: u64 = 512;
const HEADER: usize = 16;
/// One range to discard or to write zeroes to.
const RANGE: usize = 16;
/// Ranges of one request.
pub(crate) const RANGES_MAX: u32 = 16;
/// Sectors of one range.
pub(crate) const RANGE_SECTORS_MAX: u32 = 0x8000;
/// Data segments of one request: a chain has a header and a status besides.
pub(crate) const SEGMENTS_MAX: u32 = CHAIN_MAX as u32 - 2;
/// Of the flags of a range: the sectors may be given back.
const UNMAP: u32 = 1;
/// Bytes that are copied at once.
const PIECE: usize = 64 << 10;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) failed: u64,
}

/// One request that is being served.
pub(crate) struct Request<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) chain: &'a Chain,
    pub(crate) storage: &'a mut dyn Storage,
    pub(crate) pages: &'a mut Pages,
    pub(crate) violations: &'a mut Violations,
    pub(crate) requests: &'a mut Requests,
    /// What was negotiated.
    pub(crate) features: u128,
}

impl Request<'_> {
    /// Serves it, and returns how many bytes of the writable part were written.
    pub(crate) fn serve(&mut self) -> u32 {
        let Some(room) = self.chain.writable_len().checked_sub(1) else {
            self.violations
                .note("a request without room for a status".into());
            return 0;
        };
        let (status, data) = match self.answer(room) {
            Ok(data) => (S::Ok, data),
            Err(status) => (status, 0),
        };
        self.requests.failed += u64::from(status != S::Ok);
        // The last byte is the status, wherever the data end.
        let has_status = self.write(room, &[status.into()]).is_ok();
        let written = if has_status && data == room {
            data + 1
        } else {
            data
        };
        u32::try_from(written).unwrap_or(u32::MAX)
    }

    fn answer(&mut self, room: u64) -> Result<u64, S> {
        let mut header = [0; HEADER];
        self.read(0, &mut header)?;
        let ([k0, k1, k2, k3, _, _, _, _], sector) = split(header);
        let kind = T::try_from(u32::from_le_bytes([k0, k1, k2, k3])).map_err(|_| S::Unsupp)?;
        let sector = u64::from_le_bytes(sector);
        match kind {
            T::In => {
                self.requests.reads += 1;
                let start = self.place(sector, room)?;
                each_piece(room, |at, piece| {
                    let read = self.storage.read(start + at, piece);
                    read.map_err(|_| S::Ioerr)?;
                    self.write(at, piece)
                })?;
                Ok(room)
            }
            T::Out => {
                self.requests.writes += 1;
                let len = self.chain.readable_len() - HEADER as u64;
                let start = self.place(sector, len)?;
                each_piece(len, |at, piece| {
                    self.read(HEADER as u64 + at, piece)?;
                    let written = self.storage.write(start + at, piece);
                    written.map_err(|_| S::Ioerr)
                })?;
                Ok(0)
            }
            // These name no sector.
            T::Flush | T::GetId if sector != 0 => Err(S::Ioerr),
            T::Flush if self.has(F::FLUSH) => {
                self.storage.flush().map(|()| 0).map_err(|_| S::Ioerr)
            }
            T::GetId if room < ID_BYTES as u64 => Err(S::Ioerr),
            T::GetId => {
                let id = self.storage.id();
                self.write(0, &id).map(|()| id.len() as u64)
            }
            T::Discard if self.has(F::DISCARD) => self.zero(0).map(|()| 0),
            T::WriteZeroes if self.has(F::WRITE_ZEROES) => self.zero(UNMAP).map(|()| 0),
            _ => Err(S::Unsupp),
        }
    }

    fn has(&self, feature: F) -> bool {
        self.features & bits(feature) != 0
    }

    /// Makes ranges zero whose flags are among those allowed (VIRTIO 1.2, 5.2.6.2): all of them, or
    /// none.
    fn zero(&mut self, allowed: u32) -> Result<(), S> {
        let len = self.chain.readable_len() - HEADER as u64;
        let len = usize::try_from(len).map_err(|_| S::Ioerr)?;
        let most = RANGE * usize::try_from(RANGES_MAX).unwrap_or(1);
        if len == 0 || len > most || !len.is_multiple_of(RANGE) {
            return Err(S::Ioerr);
        }
        let mut list = vec![0; len];
        self.read(HEADER as u64, &mut list)?;
        let mut ranges = Vec::new();
        for range in list.as_chunks::<RANGE>().0 {
            let (sector, [a, b, c, d, flags @ ..]) = split(*range);
            let sectors = u32::from_le_bytes([a, b, c, d]);
            if u32::from_le_bytes(flags) & !allowed != 0 {
                return Err(S::Unsupp);
            }
            if sectors > RANGE_SECTORS_MAX {
                return Err(S::Ioerr);
            }
            let len = u64::from(sectors) * SECTOR;
            ranges.push((self.place(u64::from_le_bytes(sector), len)?, len));
        }
        for (start, len) in ranges {
            each_piece(len, |at, piece| {
                let written = self.storage.write(start + at, piece);
                written.map_err(|_| S::Ioerr)
            })?;
        }
        Ok(())
    }

    /// Where whole sectors lie on the disk, in bytes.
    fn place(&self, sector: u64, len: u64) -> Result<u64, S> {
        let start = sector.checked_mul(SECTOR).ok_or(S::Ioerr)?;
        let end = start.checked_add(len).ok_or(S::Ioerr)?;
        if end > self.storage.size() || !len.is_multiple_of(SECTOR) {
            return Err(S::Ioerr);
        }
        Ok(start)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), S> {
        let read = self.engine.read(self.chain, offset, bytes);
        (read == bytes.len()).then_some(()).ok_or(S::Ioerr)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), S> {
        let (pages, violations) = (&mut *self.pages, &mut *self.violations);
        let written = self
            .engine
            .write(self.chain, offset, bytes, pages, violations);
        (written == bytes.len()).then_some(()).ok_or(S::Ioerr)
    }
}

/// The configuration of a block card (VIRTIO 1.2, 5.2.4).
pub(crate) fn config(plan: &Plan, storage: &dyn Storage) -> Vec<u8> {
    let mut config = vec![0; 60];
    let mut put = |offset: usize, bytes: &[u8]| {
        config[offset..][..bytes.len()].copy_from_slice(bytes);
    };
    put(0, &(storage.size() / SECTOR).to_le_bytes());
    put(12, &SEGMENTS_MAX.to_le_bytes());
    put(20, &512_u32.to_le_bytes());
    put(34, &plan.queues.to_le_bytes());
    if plan.features & bits(F::DISCARD) != 0 {
        put(36, &RANGE_SECTORS_MAX.to_le_bytes());
        put(40, &RANGES_MAX.to_le_bytes());
        put(44, &1_u32.to_le_bytes());
    }
    if plan.features & bits(F::WRITE_ZEROES) != 0 {
        put(48, &RANGE_SECTORS_MAX.to_le_bytes());
        put(52, &RANGES_MAX.to_le_bytes());
        put(56, &[1]);
    }
    config
}

/// The two halves of 16 bytes.
fn split(bytes: [u8; 16]) -> ([u8; 8], [u8; 8]) {
    let [a, b] = [0, 8].map(|start| std::array::from_fn(|at| bytes[start + at]));
    (a, b)
}

/// Hands `work` zeroes for each piece of `len` bytes, with the piece's offset.
fn each_piece(len: u64, mut work: impl FnMut(u64, &mut [u8]) -> Result<(), S>) -> Result<(), S> {
    let mut offset = 0;
    while offset < len {
        let left = usize::try_from(len - offset).unwrap_or(PIECE);
        let mut piece = vec![0; left.min(PIECE)];
        work(offset, &mut piece)?;
        offset += piece.len() as u64;
    }
    Ok(())
}
