//! The log of the pages that a device writes.

use alloc::format;
use alloc::vec;

use virtq::{DmaAddr, SharedMemory};

use crate::dirty::{DirtyPages, LogError, PAGE_SIZE};
use crate::ops::{Abilities, DirtyLog, OpError};

use super::bench::{Bench, Format};
use super::rig::Rig;
use super::traffic::{Told, Traffic};
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal, skip_unless};

checks! {
    "a device that keeps no dirty-page log says so" => unable,
    "the dirty-page log equals the pages that were written" => equals,
    "nothing is logged after the log was stopped" => stopped,
    "a reset ends the dirty-page log" => reset,
    "a log that ends early is not written beyond" => short,
}

/// Buffers of later requests lie this far behind those of the first, in bytes.
const LATER: u64 = 64 << 20;

fn needs_log(bench: &Bench<'_>) -> Verdict {
    let able = bench.device.abilities().contains(Abilities::DIRTY_LOG);
    skip_unless(able, "it keeps no dirty-page log")
}

/// A bitmap in memory of the rig, with a page behind its end that stays as it is.
struct Bitmap {
    memory: SharedMemory,
    log: DirtyLog,
    /// What has been taken out of it.
    seen: DirtyPages,
}

impl Bitmap {
    /// With bits for everything that is mapped now, and some more.
    fn covering(rig: &Rig) -> Result<Self, Stop> {
        let last = rig.attachment.with_table(0, |table| {
            let ends = table.iter().map(|mapping| mapping.range.last());
            ends.max().unwrap_or(0)
        });
        let last = last.or_fail("what is mapped")?.saturating_add(LATER);
        Self::new(rig, DirtyLog::covering(DmaAddr(0), last).len)
    }

    fn new(rig: &Rig, len: u64) -> Result<Self, Stop> {
        let size = usize::try_from(len.saturating_add(PAGE_SIZE));
        let memory = size
            .ok()
            .and_then(|size| SharedMemory::new(&rig.dma, size).ok());
        let memory = memory.ok_or(Stop::Skipped("no memory for a log of its addresses"))?;
        let base = memory.addr();
        Ok(Self {
            log: DirtyLog { base, len },
            seen: DirtyPages::new(),
            memory,
        })
    }

    async fn start(&self, rig: &Rig) -> Verdict {
        // SAFETY: the bitmap is memory of its own.
        let started = unsafe { rig.attachment.start_dirty_log(self.log) }.await;
        started.or_fail("the log starts")
    }

    /// Whether it has bits for all of these, without which they show nothing.
    fn check_covers(&self, pages: &DirtyPages) -> Verdict {
        let covered = pages.iter().all(|page| page / 8 < self.log.len);
        skip_unless(covered, "its memory lies beyond the log")
    }

    /// Takes what has been logged.
    fn take(&mut self) -> Verdict {
        let taken = self.seen.take(&self.memory, 0, self.log.len);
        taken.or_fail("the bitmap")
    }

    /// Waits until all of these have been logged.
    async fn holds(&mut self, bench: &Bench<'_>, expected: &DirtyPages) -> Verdict {
        self.check_covers(expected)?;
        let found = bench
            .wait(|| match self.take() {
                Ok(()) => expected
                    .iter()
                    .all(|page| self.seen.contains(page))
                    .then_some(Ok(())),
                failed => Some(failed),
            })
            .await;
        let Self { seen, .. } = self;
        let missing = format!("written was {expected:?}, logged is {seen:?}");
        found.unwrap_or(Err(Stop::Failed(missing)))
    }

    /// Whether the page behind the end is as it was.
    fn check_end(&self) -> Verdict {
        let mut behind = vec![0; self.memory.len().saturating_sub(self.log.len) as usize];
        let read = self.memory.read(self.log.len, &mut behind);
        read.or_fail("the page behind the log")?;
        let clean = behind.iter().all(|byte| *byte == 0);
        ensure(clean, "the device has written beyond the end of the log")
    }
}

/// Has a request answered, which may have been made, and adds the pages that the device has written
/// for it.
async fn exchange(bench: &Bench<'_>, traffic: &mut Traffic, written: &mut DirtyPages) -> Verdict {
    let latest = traffic.rig.lines[traffic.answers()].latest;
    let addr = latest.ok_or(Stop::Skipped("its requests have no answer"))?;
    let number = traffic.number();
    traffic.kick();
    traffic.answer(bench, number).await?;
    written.insert(addr, traffic.answer_len(bench) as u64);
    Ok(())
}

/// The pages that a device writes of its rings (VIRTIO 1.2, 2.7.8 and 2.8).
fn rings(rig: &Rig, format: Format) -> DirtyPages {
    let mut pages = DirtyPages::new();
    for line in &rig.lines {
        let (addresses, size) = (line.ring.addresses(), u64::from(line.ring.size()));
        match format {
            Format::Split => pages.insert(addresses.device, 6 + 8 * size),
            Format::Packed => {
                pages.insert(addresses.descriptor, 16 * size);
                pages.insert(addresses.device, 4);
            }
        }
    }
    pages
}

/// A device that runs, with a request of which it has not been told.
async fn asked(bench: &Bench<'_>, format: Format) -> Result<Traffic, Stop> {
    let mut traffic = Traffic::start(bench, format).await?;
    traffic.request(bench, Told::No)?;
    Ok(traffic)
}

async fn unable(bench: &Bench<'_>) -> Verdict {
    if bench.device.abilities().contains(Abilities::DIRTY_LOG) {
        return Ok(());
    }
    let rig = Rig::start(bench, Format::Split).await?;
    let bitmap = Bitmap::new(&rig, PAGE_SIZE)?;
    // SAFETY: as for `Bitmap::start`.
    let answer = unsafe { rig.attachment.start_dirty_log(bitmap.log) }.await;
    let unsupported = Err(LogError::Device(OpError::Unsupported));
    equal("the start of a log", &answer, &unsupported)?;
    drop(bitmap);
    rig.stop(bench).await
}

async fn equals(bench: &Bench<'_>) -> Verdict {
    needs_log(bench)?;
    for format in bench.formats()? {
        let mut traffic = asked(bench, *format).await?;
        let mut bitmap = Bitmap::covering(&traffic.rig)?;
        let rings = rings(&traffic.rig, *format);
        bitmap.start(&traffic.rig).await?;
        let mut written = DirtyPages::new();
        exchange(bench, &mut traffic, &mut written).await?;
        bitmap.holds(bench, &written).await?;
        let mut allowed = rings.clone();
        allowed.merge(&written);
        let surplus = bitmap.seen.iter().find(|page| !allowed.contains(*page));
        equal("logged, but not written,", &surplus, &None)?;

        // With the rings it is complete at any time: while it runs, or when it has come to rest.
        let attachment = &traffic.rig.attachment;
        let mut seen = bitmap.seen.clone();
        let taken = attachment.take_dirty_pages(&mut seen);
        taken.or_fail("the log is read")?;
        equal("the log while it runs", &seen, &allowed)?;
        if bench.device.abilities().contains(Abilities::SUSPEND) {
            bench.device.suspend().await.or_fail("suspend")?;
            bitmap.take()?;
            equal("the log, suspended,", &bitmap.seen, &allowed)?;
        }
        bitmap.check_end()?;
        drop(bitmap);
        traffic.stop(bench).await?;
    }
    Ok(())
}

async fn stopped(bench: &Bench<'_>) -> Verdict {
    needs_log(bench)?;
    let mut traffic = asked(bench, Format::Split).await?;
    let mut bitmap = Bitmap::covering(&traffic.rig)?;
    // A bit that was taken is set again, and a log can be started again.
    for round in 0..2 {
        bitmap.start(&traffic.rig).await?;
        bitmap.seen = DirtyPages::new();
        let mut written = DirtyPages::new();
        exchange(bench, &mut traffic, &mut written).await?;
        bitmap.holds(bench, &written).await?;
        let stopped = traffic.rig.attachment.stop_dirty_log().await;
        stopped.or_fail(format!("the log stops, round {round}"))?;
        bitmap.take()?;
        bitmap.seen = DirtyPages::new();
        traffic.request(bench, Told::No)?;
        let mut unlogged = DirtyPages::new();
        exchange(bench, &mut traffic, &mut unlogged).await?;
        bitmap.check_covers(&unlogged)?;
        traffic.is_quiet(bench).await?;
        bitmap.take()?;
        equal("logged after the stop", &bitmap.seen, &DirtyPages::new())?;
        traffic.request(bench, Told::No)?;
    }
    drop(bitmap);
    traffic.stop(bench).await
}

async fn reset(bench: &Bench<'_>) -> Verdict {
    needs_log(bench)?;
    let mut traffic = asked(bench, Format::Split).await?;
    let mut bitmap = Bitmap::covering(&traffic.rig)?;
    bitmap.start(&traffic.rig).await?;
    exchange(bench, &mut traffic, &mut DirtyPages::new()).await?;
    bench.device.reset().await.or_fail("reset")?;
    bitmap.take()?;
    bitmap.seen = DirtyPages::new();
    let mut after = DirtyPages::new();
    let answer = traffic.rig.attachment.take_dirty_pages(&mut after);
    equal("the log after a reset", &answer, &Err(LogError::NotRunning))?;
    traffic.stop(bench).await?;
    let mut traffic = asked(bench, Format::Split).await?;
    let mut unlogged = DirtyPages::new();
    exchange(bench, &mut traffic, &mut unlogged).await?;
    bitmap.check_covers(&unlogged)?;
    traffic.is_quiet(bench).await?;
    bitmap.take()?;
    equal("logged after a reset", &bitmap.seen, &DirtyPages::new())?;
    drop(bitmap);
    traffic.stop(bench).await
}

async fn short(bench: &Bench<'_>) -> Verdict {
    needs_log(bench)?;
    let mut traffic = asked(bench, Format::Split).await?;
    let latest = traffic.rig.lines[traffic.answers()].latest;
    let addr = latest.ok_or(Stop::Skipped("its requests have no answer"))?;
    // The byte with the bit of the answer's first page is the first behind the end.
    let len = addr.0 / PAGE_SIZE / 8;
    skip_unless(len > 0, "its memory lies in the first pages")?;
    let bitmap = Bitmap::new(&traffic.rig, len)?;
    bitmap.start(&traffic.rig).await?;
    exchange(bench, &mut traffic, &mut DirtyPages::new()).await?;
    traffic.is_quiet(bench).await?;
    bitmap.check_end()?;
    let stopped = traffic.rig.attachment.stop_dirty_log().await;
    stopped.or_fail("the log stops")?;
    bitmap.check_end()?;
    drop(bitmap);
    traffic.stop(bench).await
}
