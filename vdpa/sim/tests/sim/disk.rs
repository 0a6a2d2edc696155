//! A simulated disk, and requests to it.

use std::sync::Arc;

use vdpa::VdpaOps;
use vdpa_sim::{Access, RamDisk, SimBlk, SimBlkConfig, SimConfig, Storage};
use virtio::blk::F;

use crate::world::{Answer, Rig, Variant, World};

pub const SECTOR: usize = 512;
/// The sectors of a test's disk.
pub const SECTORS: u64 = 2048;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

pub fn ram_disk() -> Arc<RamDisk> {
    RamDisk::new(SECTORS * SECTOR as u64, Storage::Sparse).unwrap()
}

pub fn config(disk: &Arc<RamDisk>, sim: SimConfig) -> SimBlkConfig {
    SimBlkConfig {
        disk: Arc::clone(disk),
        block_size: 512,
        queues: 2,
        access: Access::ReadWrite,
        sim,
    }
}

pub fn sim_blk(world: &World, disk: &Arc<RamDisk>, sim: SimConfig) -> Box<dyn VdpaOps> {
    SimBlk::new(&config(disk, sim), &world.kernel()).unwrap()
}

/// What a driver accepts that wants everything.
pub fn all() -> F {
    F::FLUSH | F::DISCARD | F::WRITE_ZEROES | F::SEG_MAX | F::SIZE_MAX | F::MQ
}

/// A running disk with one queue.
pub fn drive(world: &World, disk: &Arc<RamDisk>, variant: Variant) -> Rig {
    let ops = sim_blk(world, disk, variant.sim());
    world.drive(ops, variant, all(), &[0])
}

pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// One range to discard or to zero.
pub fn range(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8..12].copy_from_slice(&sectors.to_le_bytes());
    range[12..].copy_from_slice(&flags.to_le_bytes());
    range
}

impl Answer {
    /// The last byte that the device could write.
    pub fn status(&self) -> u8 {
        *self.bytes.last().unwrap()
    }
}

impl Rig {
    pub fn read(&mut self, world: &World, sector: u64, len: usize) -> Answer {
        self.exchange(world, 0, &[&header(IN, sector)], &[len, 1])
    }

    pub fn write(&mut self, world: &World, sector: u64, bytes: &[u8]) -> Answer {
        self.exchange(world, 0, &[&header(OUT, sector), bytes], &[1])
    }

    /// A request with whatever follows its header, and its status.
    pub fn request(&mut self, world: &World, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let header = header(kind, sector);
        let readable: &[&[u8]] = if data.is_empty() {
            &[&header]
        } else {
            &[&header, data]
        };
        self.exchange(world, 0, readable, &[1]).status()
    }
}
