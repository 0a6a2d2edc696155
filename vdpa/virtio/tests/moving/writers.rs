//! Load on a disk: writers that check every block that they have written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdpa::Platform;
use vdpa_sim::RamDisk;
use virtio_blk::{BlkError, Disk};

use crate::world::World;

/// How many writers there are, each with blocks of its own.
const WRITERS: u64 = 8;
/// How many sectors belong to a writer.
const SECTORS: u64 = 64;
const SECTOR: usize = 512;

/// Writers at work.
pub(crate) struct Writers {
    books: Arc<Books>,
}

#[derive(Default)]
struct Books {
    stopped: AtomicBool,
    running: AtomicU64,
    writes: AtomicU64,
    /// What each sector must hold.
    last: Mutex<Vec<(u64, [u8; SECTOR])>>,
    errors: Mutex<Vec<BlkError>>,
}

impl Writers {
    pub(crate) fn start(world: &World, disk: &Disk) -> Self {
        let books = Arc::<Books>::default();
        for writer in 0..WRITERS {
            books.running.fetch_add(1, Ordering::Relaxed);
            let task = work(
                disk.clone(),
                Arc::clone(&world.kernel),
                Arc::clone(&books),
                writer,
            );
            world.spawn(task);
        }
        Self { books }
    }

    /// How many writes have completed, each checked by reading.
    pub(crate) fn writes(&self) -> u64 {
        self.books.writes.load(Ordering::Relaxed)
    }

    /// How many writers have not met an error.
    pub(crate) fn running(&self) -> u64 {
        self.books.running.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> Vec<BlkError> {
        self.books.errors.lock().unwrap().clone()
    }

    /// Lets the writers complete some more writes.
    pub(crate) async fn progress(&self, world: &World) {
        let before = self.writes();
        for _ in 0..10_000 {
            if self.writes() >= before + 3 * WRITERS {
                return;
            }
            world.kernel.sleep(Duration::from_millis(1)).await;
        }
        panic!("{} writes and no more, {:?}", self.writes(), self.errors());
    }

    /// Ends the load. Nobody has met an error, and the disk holds what was written last.
    pub(crate) async fn finish(self, world: &World, disk: &RamDisk) {
        self.books.stopped.store(true, Ordering::Relaxed);
        while self.running() > 0 {
            world.kernel.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.errors(), []);
        for (sector, expected) in &*self.books.last.lock().unwrap() {
            let mut bytes = [0; SECTOR];
            disk.read(sector * SECTOR as u64, &mut bytes).unwrap();
            assert!(bytes == *expected, "sector {sector}");
        }
    }
}

impl Books {
    fn remember(&self, sector: u64, pattern: [u8; SECTOR]) {
        let mut last = self.last.lock().unwrap();
        last.retain(|(other, _)| *other != sector);
        last.push((sector, pattern));
    }
}

async fn work(disk: Disk, platform: Arc<dyn Platform>, books: Arc<Books>, writer: u64) {
    let mut round = 0;
    while !books.stopped.load(Ordering::Relaxed) {
        let sector = writer * SECTORS + round % SECTORS;
        let pattern = pattern(writer, round);
        let result = write_and_check(&disk, sector, &pattern).await;
        if let Err(error) = result {
            books.errors.lock().unwrap().push(error);
            break;
        }
        books.writes.fetch_add(1, Ordering::Relaxed);
        books.remember(sector, pattern);
        platform
            .sleep(Duration::from_micros(50 * (writer + 1)))
            .await;
        round += 1;
    }
    books.running.fetch_sub(1, Ordering::Relaxed);
}

async fn write_and_check(disk: &Disk, sector: u64, pattern: &[u8; SECTOR]) -> Result<(), BlkError> {
    let mut buffer = disk.buffer(SECTOR)?;
    buffer.copy_from_slice(pattern);
    let mut buffer = disk.write(sector, buffer).await?;
    buffer.fill(0);
    let buffer = disk.read(sector, buffer).await?;
    assert!(buffer[..] == pattern[..], "sector {sector} reads back");
    Ok(())
}

fn pattern(writer: u64, round: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    for (at, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        let word = writer << 56 | round << 16 | at as u64;
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
