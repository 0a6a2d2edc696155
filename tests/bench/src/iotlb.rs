//! Operations of an IOTLB with so many entries: one page each, with holes between them and in an
//! order that no cache likes.

use alloc::vec::Vec;
use core::hint::black_box;

use guest_bench::row::IotlbOperation;
use kernel::System;
use vdpa::iotlb::{Capacity, Iotlb, IovaRange, Permission};
use vdpa::ops::Backing;
use virtq::{DeviceMemory, SharedMemory};

use crate::Failure;
use crate::stopwatch::{Stopwatch, Work};

const PAGE_LEN: u64 = 4096;

/// Where the pages begin.
const BASE: u64 = 1 << 40;

/// Operations between two looks at the clock, so that the looks cost next to nothing.
const BATCH: u64 = 256;

/// How much larger or smaller a table may become during a batch: one part in so many.
const TOLERANCE: u64 = 16;

/// A prime, with which the places of a table are visited in an order that jumps about.
const STRIDE: u64 = 61_819;

/// Tables of one size.
pub struct Tables {
    operation: IotlbOperation,
    /// More than one where a table alone is too small for a batch.
    tables: Vec<Iotlb<Backing>>,
    /// Entries that always stay.
    base: u64,
    /// Entries of each table that come and go.
    changing: u64,
    backing: Backing,
    /// The place that is looked up next.
    place: u64,
}

impl Tables {
    /// Tables of `entries` entries, which is not zero.
    pub fn new(system: &System, operation: IotlbOperation, entries: u32) -> Result<Self, Failure> {
        let entries = u64::from(entries);
        let changing = (entries / TOLERANCE).clamp(1, BATCH);
        let base = match operation {
            // The entries that are taken away are there at first.
            IotlbOperation::Unmap => entries - changing,
            IotlbOperation::Map | IotlbOperation::Translate => entries,
        };
        let page = SharedMemory::new(&system.platform().dma(), PAGE_LEN as usize)?;
        let mut tables = Self {
            operation,
            tables: Vec::new(),
            base,
            changing,
            backing: Backing {
                memory: DeviceMemory::open(&page)?,
                offset: 0,
            },
            place: 0,
        };
        for _ in 0..BATCH.div_ceil(changing) {
            let mut table = Iotlb::new(Capacity::Unlimited);
            for place in 0..base {
                map(&mut table, even(place), &tables.backing)?;
            }
            tables.tables.push(table);
        }
        Ok(tables)
    }

    /// Adds the entries that come and go.
    fn grow(&mut self) -> Result<u64, Failure> {
        for table in &mut self.tables {
            for step in 0..self.changing {
                map(table, odd(step, self.base), &self.backing)?;
            }
        }
        Ok(self.tables.len() as u64 * self.changing)
    }

    /// Takes them away.
    fn shrink(&mut self) -> Result<u64, Failure> {
        for table in &mut self.tables {
            for step in 0..self.changing {
                table.unmap(page(odd(step, self.base))?)?;
            }
        }
        Ok(self.tables.len() as u64 * self.changing)
    }

    fn translate(&mut self) -> Result<u64, Failure> {
        for table in &self.tables {
            for _ in 0..self.changing {
                self.place = (self.place + STRIDE) % self.base;
                let addr = even(self.place) + PAGE_LEN / 2;
                black_box(table.translate(black_box(addr), Permission::READ)?);
            }
        }
        Ok(self.tables.len() as u64 * self.changing)
    }
}

impl Work for Tables {
    async fn perform(
        &mut self,
        operations: u64,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<u64, Failure> {
        let mut done = 0;
        while done < operations {
            done += match self.operation {
                IotlbOperation::Map => {
                    let done = stopwatch.time(async { self.grow() }).await?;
                    self.shrink()?;
                    done
                }
                IotlbOperation::Unmap => {
                    self.grow()?;
                    stopwatch.time(async { self.shrink() }).await?
                }
                IotlbOperation::Translate => stopwatch.time(async { self.translate() }).await?,
            };
        }
        Ok(done)
    }
}

/// The address of an entry that stays.
fn even(place: u64) -> u64 {
    BASE + 2 * place * PAGE_LEN
}

/// The address of an entry that comes and goes, in one of the holes between `base` others.
fn odd(step: u64, base: u64) -> u64 {
    even(step * STRIDE % base.max(1)) + PAGE_LEN
}

fn page(addr: u64) -> Result<IovaRange, Failure> {
    Ok(IovaRange::new(addr, PAGE_LEN)?)
}

fn map(table: &mut Iotlb<Backing>, addr: u64, backing: &Backing) -> Result<(), Failure> {
    table.map(page(addr)?, Permission::READ, backing.clone())?;
    Ok(())
}
