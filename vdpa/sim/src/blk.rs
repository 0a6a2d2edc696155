//! `sim-blk`: a disk in memory (VIRTIO 1.2, 5.2).
//!
//! Several devices may stand on one [`RamDisk`]: what one has written the other reads, so that a
//! running disk can be moved from one to the other.

mod config;
mod counters;
mod disk;
mod model;
mod request;

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::{Features, Platform, VdpaOps};

use super::bell::Bell;
use super::device::creation_step;
use super::engine::{base_offer, ring_offer};
use super::launch::launch;
use super::{CreateError, SimConfig};

pub use self::disk::{DiskError, RamDisk, SECTOR_LEN, Storage};

use self::model::BlkModel;

/// What a simulated disk is made from.
#[derive(Clone, Debug)]
pub struct SimBlkConfig {
    /// Where the data are.
    pub disk: Arc<RamDisk>,
    /// The block size that is reported, in bytes: a power of two from 512 to 65536. Requests may be
    /// of any whole number of sectors nevertheless.
    pub block_size: u32,
    /// How many queues there are, at most [`SimBlk::QUEUES_MAX`].
    pub queues: u16,
    /// Whether the driver may write.
    pub access: Access,
    /// What it has in common with other simulated devices.
    pub sim: SimConfig,
}

/// What a driver may do with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Only read.
    ReadOnly,
}

/// A simulated disk.
#[derive(Clone, Copy, Debug)]
pub struct SimBlk;

impl SimBlk {
    /// The most queues that a device can have.
    pub const QUEUES_MAX: u16 = 64;

    /// Everything that the device can offer; a disk that can only be read offers `VIRTIO_BLK_F_RO`,
    /// too.
    #[must_use]
    pub fn features() -> Features {
        config::features(Access::ReadWrite) | ring_offer() | base_offer()
    }

    /// Makes a disk, whose worker runs until the operations are dropped or told to stop it.
    ///
    /// # Errors
    /// [`CreateError`]: nothing is left of the device.
    #[expect(
        clippy::new_ret_no_self,
        reason = "the bus owns a device through its operations"
    )]
    pub fn new(
        config: &SimBlkConfig,
        platform: &Arc<dyn Platform>,
    ) -> Result<Box<dyn VdpaOps>, CreateError> {
        if config.queues == 0 || config.queues > Self::QUEUES_MAX {
            return Err(CreateError::BadQueueCount);
        }
        if !config.block_size.is_power_of_two() || !(512..=65536).contains(&config.block_size) {
            return Err(CreateError::BadBlockSize);
        }
        if !config
            .disk
            .capacity()
            .is_multiple_of(config.block_size.into())
        {
            return Err(CreateError::BadCapacity);
        }
        creation_step(&config.sim.faults())?;
        let model = BlkModel::new(config);
        let (_, ops) = launch(model, &config.sim, Arc::<Bell>::default(), platform)?;
        Ok(ops)
    }
}
