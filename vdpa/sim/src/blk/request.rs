//! One request to a disk (VIRTIO 1.2, 5.2.6), from its header to its status.
//!
//! Data are copied between the driver's memory and the disk, and nowhere else. Nothing that the
//! header says is believed.

use vdpa::Features;
use vdpa::blk::{self, Header, ID_LEN, Range, SECTOR_LEN, UNMAP};
use virtio::blk::{F, S, T};
use virtq::device::Chain;

use crate::model::Budget;
use crate::sim_queue::SimQueue;

use super::Access;
use super::config::{SIZE_MAX, ZERO_SECTORS_MAX, ZERO_SEG_MAX};
use super::counters::Counters;
use super::disk::Contents;

/// What the disk calls itself.
const SERIAL: [u8; ID_LEN] = *b"sim-blk\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What a request is served from.
pub(super) struct Medium<'a> {
    pub(super) contents: &'a mut Contents,
    /// In bytes.
    pub(super) capacity: u64,
    pub(super) access: Access,
    pub(super) features: Features,
}

/// Why a request has not been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The disk does not know it.
    Unsupported,
    /// It makes no sense, or the memory cannot be reached.
    Io,
}

/// A part of the disk, in bytes, that lies on it.
#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
}

/// Serves a request, and returns how many bytes of the writable part were written.
#[inline]
pub(super) fn answer(
    medium: &mut Medium<'_>,
    port: &mut SimQueue,
    chain: &Chain,
    counters: &mut Counters,
    budget: &mut Budget,
) -> u32 {
    // The status is the last byte that the device can write.
    let Some(room) = chain.writable_len().checked_sub(1) else {
        counters.errors += 1;
        return 0;
    };
    let result = serve(medium, port, chain, counters, budget);
    let (status, data) = match result {
        Ok(data) => (S::Ok, data),
        Err(failure) => {
            counters.errors += 1;
            (failure.status(), 0)
        }
    };
    let has_status = port.write_last(chain, status.into());
    // VIRTIO 1.2, 2.7.8.2: so many bytes from the start were written; the status may lie beyond a
    // gap.
    let written = if has_status && data == room {
        room + 1
    } else {
        data
    };
    u32::try_from(written).unwrap_or(u32::MAX)
}

/// Does what the header asks for. Returns how many bytes of data were written for the driver.
#[inline]
fn serve(
    medium: &mut Medium<'_>,
    port: &mut SimQueue,
    chain: &Chain,
    counters: &mut Counters,
    budget: &mut Budget,
) -> Result<u64, Failure> {
    let mut header = [0; Header::LEN];
    if port.read(chain, 0, &mut header) != Ok(Header::LEN) {
        return Err(Failure::Io);
    }
    let header = Header::decode(&header);
    let Header { kind, sector } = header;
    if kind == u32::from(T::In) {
        medium.check_segments(chain)?;
        let bytes = medium.read(port, chain, sector)?;
        counters.reads += 1;
        counters.read_bytes += bytes;
        Ok(bytes)
    } else if kind == u32::from(T::Out) {
        medium.check_segments(chain)?;
        let bytes = medium.write(port, chain, sector)?;
        counters.writes += 1;
        counters.written_bytes += bytes;
        Ok(0)
    } else {
        serve_other(medium, port, chain, counters, budget, header)
    }
}

/// The same for what is neither a read nor a write.
#[cold]
fn serve_other(
    medium: &mut Medium<'_>,
    port: &mut SimQueue,
    chain: &Chain,
    counters: &mut Counters,
    budget: &mut Budget,
    header: Header,
) -> Result<u64, Failure> {
    let kind = header.request_type().ok_or(Failure::Unsupported)?;
    medium.check_segments(chain)?;
    match kind {
        // VIRTIO 1.2, 5.2.6.1: these name no sector.
        T::Flush | T::GetId if header.sector != 0 => Err(Failure::Io),
        T::Flush if medium.features.contains(F::FLUSH) => {
            // Memory has no cache before it.
            counters.flushes += 1;
            Ok(0)
        }
        T::GetId => get_id(port, chain),
        T::Discard if medium.features.contains(F::DISCARD) => {
            medium.zero(port, chain, 0, budget)?;
            counters.discards += 1;
            Ok(0)
        }
        T::WriteZeroes if medium.features.contains(F::WRITE_ZEROES) => {
            medium.zero(port, chain, UNMAP, budget)?;
            counters.write_zeroes += 1;
            Ok(0)
        }
        _ => Err(Failure::Unsupported),
    }
}

impl Medium<'_> {
    /// A driver that knows the longest segment keeps to it (VIRTIO 1.2, 5.2.6.1).
    #[inline]
    fn check_segments(&self, chain: &Chain) -> Result<(), Failure> {
        let short = chain.readable_len() + chain.writable_len() <= u64::from(SIZE_MAX);
        if short || !self.features.contains(F::SIZE_MAX) {
            return Ok(());
        }
        let mut segments = chain.readable().iter().chain(chain.writable());
        if segments.any(|segment| segment.len > SIZE_MAX) {
            return Err(Failure::Io);
        }
        Ok(())
    }

    #[inline]
    fn read(&mut self, port: &mut SimQueue, chain: &Chain, sector: u64) -> Result<u64, Failure> {
        let data = chain.writable_len().saturating_sub(1);
        let extent = self.extent(sector, data)?;
        let mut done = 0;
        while done < extent.len {
            let bytes = self
                .contents
                .stretch(extent.offset + done, stretch(extent.len - done));
            let copied = port.write(chain, done, bytes).map_err(|_| Failure::Io)?;
            done += copied as u64;
        }
        Ok(done)
    }

    #[inline]
    fn write(&mut self, port: &mut SimQueue, chain: &Chain, sector: u64) -> Result<u64, Failure> {
        self.check_writable()?;
        let header = Header::LEN as u64;
        let data = chain.readable_len().saturating_sub(header);
        let extent = self.extent(sector, data)?;
        let mut done = 0;
        while done < extent.len {
            let bytes = self
                .contents
                .stretch_mut(extent.offset + done, stretch(extent.len - done))
                .map_err(|_| Failure::Io)?;
            let copied = port.read(chain, header + done, bytes);
            done += copied.map_err(|_| Failure::Io)? as u64;
        }
        Ok(done)
    }

    /// Makes ranges zero, if their flags are among those `allowed`: none of them, or all.
    fn zero(
        &mut self,
        port: &mut SimQueue,
        chain: &Chain,
        allowed: u32,
        budget: &mut Budget,
    ) -> Result<(), Failure> {
        const LIST_LEN: usize = Range::LEN * ZERO_SEG_MAX as usize;
        self.check_writable()?;
        let header = Header::LEN as u64;
        let len = chain.readable_len().saturating_sub(header);
        let len = usize::try_from(len).map_err(|_| Failure::Io)?;
        if len == 0 || len > LIST_LEN || !len.is_multiple_of(Range::LEN) {
            return Err(Failure::Io);
        }
        let mut list = [0; LIST_LEN];
        let list = &mut list[..len];
        if port.read(chain, header, list) != Ok(len) {
            return Err(Failure::Io);
        }
        let (ranges, _) = list.as_chunks::<{ Range::LEN }>();
        for range in ranges {
            self.range(range, allowed)?;
        }
        for range in ranges {
            let Extent { offset, len } = self.range(range, allowed)?;
            self.contents.zero(offset, len);
            budget.pay_bytes(len);
        }
        Ok(())
    }

    /// One range of a list (VIRTIO 1.2, 5.2.6.2: unknown flags are unsupported).
    fn range(&self, range: &[u8; Range::LEN], allowed: u32) -> Result<Extent, Failure> {
        let Range {
            sector,
            sectors,
            flags,
        } = Range::decode(range);
        if flags & !allowed != 0 {
            return Err(Failure::Unsupported);
        }
        if sectors > ZERO_SECTORS_MAX {
            return Err(Failure::Io);
        }
        self.extent(sector, u64::from(sectors) * SECTOR_LEN)
    }

    /// The bytes from a sector on, if they lie on the disk and are whole sectors.
    #[inline]
    fn extent(&self, sector: u64, len: u64) -> Result<Extent, Failure> {
        let offset = blk::place(sector, len, self.capacity).ok_or(Failure::Io)?;
        Ok(Extent { offset, len })
    }

    fn check_writable(&self) -> Result<(), Failure> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Failure::Io),
        }
    }
}

fn get_id(port: &mut SimQueue, chain: &Chain) -> Result<u64, Failure> {
    if chain.writable_len() <= SERIAL.len() as u64 {
        return Err(Failure::Io);
    }
    let copied = port.write(chain, 0, &SERIAL).map_err(|_| Failure::Io)?;
    Ok(copied as u64)
}

/// As much of `len` as one part of the disk can be.
#[inline]
fn stretch(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Failure {
    fn status(self) -> S {
        match self {
            Self::Unsupported => S::Unsupp,
            Self::Io => S::Ioerr,
        }
    }
}
