//! Requests to a disk, with as many tasks as requests are to be in flight: each task makes one
//! request after the other with a buffer of its own.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use guest_bench::row::{Access, REQUEST_LEN};
use kernel::System;
use virtio_blk::{BlkError, Disk};
use virtq::{DmaBuffer, Event};

use crate::Failure;
use crate::stopwatch::{Stopwatch, Work};

/// Bytes of a sector.
const SECTOR_LEN: u64 = 512;

/// Requests that follow each other on the disk.
pub struct Requests {
    system: System,
    shared: Rc<Shared>,
    buffers: Vec<DmaBuffer>,
}

/// What the tasks of one measurement share.
struct Shared {
    disk: Disk,
    access: Access,
    /// Sectors of the disk that are used.
    sectors: u64,
    /// Requests that are still to be made.
    left: Cell<u64>,
    /// The next sector.
    sector: Cell<u64>,
    /// Where the buffers come back to.
    buffers: RefCell<Vec<DmaBuffer>>,
    tasks: Cell<usize>,
    ended: Arc<Event>,
    error: Cell<Option<BlkError>>,
}

impl Requests {
    /// Requests to `disk`, `depth` of them in flight.
    pub fn new(system: &System, disk: &Disk, access: Access, depth: u32) -> Result<Self, Failure> {
        let buffers: Result<_, _> = (0..depth).map(|_| disk.buffer(REQUEST_LEN)).collect();
        let sectors_per_request = REQUEST_LEN as u64 / SECTOR_LEN;
        let sectors = disk.capacity() / sectors_per_request * sectors_per_request;
        if sectors == 0 {
            return Err("the disk is too small".into());
        }
        let shared = Rc::new(Shared {
            disk: disk.clone(),
            access,
            sectors,
            left: Cell::new(0),
            sector: Cell::new(0),
            buffers: RefCell::default(),
            tasks: Cell::new(0),
            ended: Arc::default(),
            error: Cell::new(None),
        });
        Ok(Self {
            system: system.clone(),
            shared,
            buffers: buffers?,
        })
    }

    /// Starts a task for each buffer, and waits for the end of all.
    async fn run(&mut self) {
        self.shared.tasks.set(self.buffers.len());
        for buffer in self.buffers.drain(..) {
            let shared = Rc::clone(&self.shared);
            self.system.spawn("requests", async move {
                shared.work(buffer).await;
                shared.end();
            });
        }
        self.shared.ended.wait().await;
        self.buffers.append(&mut self.shared.buffers.borrow_mut());
    }
}

impl Work for Requests {
    async fn perform(
        &mut self,
        operations: u64,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<u64, Failure> {
        self.shared.left.set(operations);
        stopwatch.time(self.run()).await;
        match self.shared.error.take() {
            Some(error) => Err(error.into()),
            None => Ok(operations),
        }
    }
}

impl Shared {
    /// Makes requests until none is left, and puts the buffer away.
    async fn work(&self, mut buffer: DmaBuffer) {
        while let Some(sector) = self.next() {
            let transfer = match self.access {
                Access::Read => self.disk.read(sector, buffer),
                Access::Write => self.disk.write(sector, buffer),
            };
            match transfer.await {
                Ok(returned) => buffer = returned,
                Err(error) => {
                    self.error.set(Some(error));
                    self.left.set(0);
                    return;
                }
            }
        }
        self.buffers.borrow_mut().push(buffer);
    }

    /// Where the next request goes.
    fn next(&self) -> Option<u64> {
        self.left.set(self.left.get().checked_sub(1)?);
        let sector = self.sector.get();
        let next = sector + REQUEST_LEN as u64 / SECTOR_LEN;
        self.sector.set(if next < self.sectors { next } else { 0 });
        Some(sector)
    }

    fn end(&self) {
        self.tasks.set(self.tasks.get() - 1);
        if self.tasks.get() == 0 {
            self.ended.raise();
        }
    }
}
