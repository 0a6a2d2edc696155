//! A disk (VIRTIO 1.2, 5.2).

use alloc::format;
use alloc::vec::Vec;

use virtio::blk::T;

use crate::Features;
use crate::config::blk;

use super::Service;
use super::bench::{Bench, Format};
use super::rig::{Answer, Rig, UNTOUCHED};
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal, skip_unless};

checks! {
    "split: what is written is read back, and is put back" => split,
    "packed: what is written is read back, and is put back" => packed,
    "it can be flushed, and has a name" => flush_and_name,
    "what lies beyond its end is refused, and nothing is written there" => beyond_the_end,
    "a request that does not exist is refused" => no_such_request,
    "many requests are answered, past the end of the ring" => many,
}

const SECTOR_LEN: usize = 512;
/// The sectors that may be overwritten.
const SECTORS: usize = 8;
const DATA_LEN: usize = SECTORS * SECTOR_LEN;
/// The answer to a read of them: the data and the status.
pub(super) const READ_LEN: usize = DATA_LEN + 1;
const NAME_LEN: usize = 20;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// The header of a request (VIRTIO 1.2, 5.2.6).
fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = Vec::from(kind.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

pub(super) fn read_request(sector: u64) -> Vec<u8> {
    header(T::In.into(), sector)
}

fn write_request(sector: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(T::Out.into(), sector);
    bytes.extend(data);
    bytes
}

/// A disk that runs.
struct Disk {
    rig: Rig,
}

impl Disk {
    async fn start(bench: &Bench<'_>, format: Format) -> Result<Self, Stop> {
        let is_disk = bench.subject.service() == Service::Blk;
        skip_unless(is_disk, "it is no disk")?;
        let extra = Features::from(virtio::blk::F::FLUSH);
        let rig = Rig::start_with(bench, format, extra).await?;
        Ok(Self { rig })
    }

    /// One request from the start to the end. Returns the status, and what comes before it.
    async fn ask(
        &mut self,
        bench: &Bench<'_>,
        request: &[u8],
        answer: usize,
    ) -> Result<(u8, Answer), Stop> {
        let Rig { lines, dma, .. } = &mut self.rig;
        let line = lines.first_mut().ok_or(Stop::Skipped("it has no queue"))?;
        line.offer(dma, request, answer + 1)?;
        line.kick();
        let mut answer = line.answer(bench).await?;
        let status = answer.bytes.pop().unwrap_or(UNTOUCHED);
        Ok((status, answer))
    }

    async fn read(&mut self, bench: &Bench<'_>) -> Result<Vec<u8>, Stop> {
        let (status, answer) = self.ask(bench, &read_request(0), DATA_LEN).await?;
        equal("the status of a read", &status, &OK)?;
        equal("the length of its answer", &answer.written, &READ_LEN)?;
        Ok(answer.bytes)
    }

    async fn write(&mut self, bench: &Bench<'_>, data: &[u8]) -> Verdict {
        let (status, answer) = self.ask(bench, &write_request(0, data), 0).await?;
        equal("the status of a write", &status, &OK)?;
        equal("the length of its answer", &answer.written, &1)
    }

    async fn stop(self, bench: &Bench<'_>) -> Verdict {
        self.rig.stop(bench).await
    }
}

/// The number of sectors of the disk.
fn capacity(bench: &Bench<'_>) -> Result<u64, Stop> {
    let read = |at: u32, bytes: &mut [u8]| bench.device.read_config(at, bytes);
    blk::CAPACITY.read(read).or_fail("the capacity")
}

fn is_read_only(bench: &Bench<'_>) -> bool {
    let offered = bench.device.device_features().unwrap_or_default();
    offered.contains(virtio::blk::F::RO)
}

async fn split(bench: &Bench<'_>) -> Verdict {
    write_and_read(bench, Format::Split).await
}

async fn packed(bench: &Bench<'_>) -> Verdict {
    bench.needs_packed()?;
    write_and_read(bench, Format::Packed).await
}

async fn write_and_read(bench: &Bench<'_>, format: Format) -> Verdict {
    let mut disk = Disk::start(bench, format).await?;
    ensure(
        capacity(bench)? >= SECTORS as u64,
        "it has fewer than 8 sectors",
    )?;
    let before = disk.read(bench).await?;
    if is_read_only(bench) {
        return disk.stop(bench).await;
    }
    let pattern: Vec<u8> = (0..DATA_LEN)
        .map(|at| (at * 7 + at / SECTOR_LEN).to_le_bytes()[0])
        .collect();
    disk.write(bench, &pattern).await?;
    let read = disk.read(bench).await?;
    disk.write(bench, &before).await?;
    ensure(read == pattern, "what was read is not what was written")?;
    ensure(
        disk.read(bench).await? == before,
        "the disk is not as before",
    )?;
    disk.stop(bench).await
}

async fn flush_and_name(bench: &Bench<'_>) -> Verdict {
    let mut disk = Disk::start(bench, Format::Split).await?;
    let features = bench.device.driver_features().unwrap_or_default();
    if features.contains(virtio::blk::F::FLUSH) {
        let (status, _) = disk.ask(bench, &header(T::Flush.into(), 0), 0).await?;
        equal("the status of a flush", &status, &OK)?;
    }
    let (status, answer) = disk
        .ask(bench, &header(T::GetId.into(), 0), NAME_LEN)
        .await?;
    ensure(
        matches!(status, OK | UNSUPPORTED),
        format!("the status of a request for the name is {status}"),
    )?;
    if status == OK {
        equal("the length of the name", &answer.written, &(NAME_LEN + 1))?;
    }
    disk.stop(bench).await
}

async fn beyond_the_end(bench: &Bench<'_>) -> Verdict {
    let mut disk = Disk::start(bench, Format::Split).await?;
    let end = capacity(bench)?;
    for sector in [end, end.wrapping_sub(1), u64::MAX] {
        let (status, _) = disk.ask(bench, &read_request(sector), DATA_LEN).await?;
        equal(
            format!("the status of a read at {sector}"),
            &status,
            &IO_ERROR,
        )?;
        let data = [0xee; DATA_LEN];
        let (status, _) = disk.ask(bench, &write_request(sector, &data), 0).await?;
        equal(
            format!("the status of a write at {sector}"),
            &status,
            &IO_ERROR,
        )?;
    }
    // It still works.
    disk.read(bench).await?;
    disk.stop(bench).await
}

async fn no_such_request(bench: &Bench<'_>) -> Verdict {
    let mut disk = Disk::start(bench, Format::Split).await?;
    let (status, _) = disk.ask(bench, &header(0x7777, 0), 0).await?;
    equal("the status", &status, &UNSUPPORTED)?;
    disk.read(bench).await?;
    disk.stop(bench).await
}

async fn many(bench: &Bench<'_>) -> Verdict {
    for format in bench.formats()? {
        let mut disk = Disk::start(bench, *format).await?;
        let entries = usize::from(disk.rig.lines.first().map_or(0, |line| line.ring.size()));
        let first = disk.read(bench).await?;
        for _ in 0..3 * entries {
            ensure(
                disk.read(bench).await? == first,
                "a read differs from the first",
            )?;
        }
        disk.stop(bench).await?;
    }
    Ok(())
}
