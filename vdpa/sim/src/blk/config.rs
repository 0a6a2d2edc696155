//! What a simulated disk offers, and its configuration space (VIRTIO 1.2, 5.2.3 and 5.2.4).

use vdpa::Features;
use vdpa::config::blk;
use virtio::blk::F;

use crate::model::CONFIG_MAX;

use super::disk::SECTOR_LEN;
use super::{Access, SimBlkConfig};

/// The longest segment in bytes.
pub(super) const SIZE_MAX: u32 = 64 * 1024;
/// The most ranges in a request to discard or to write zeroes, and the most sectors in one of them:
/// such a request is short, and must not keep the worker for long nevertheless.
pub(super) const ZERO_SEG_MAX: u32 = 8;
pub(super) const ZERO_SECTORS_MAX: u32 = 8192;

/// The size of the space, up to `write_zeroes_may_unmap` and its padding.
pub(super) const CONFIG_SIZE: u32 = blk::SIZE as u32;

/// The features of a disk.
pub(super) fn features(access: Access) -> Features {
    let limits = F::SIZE_MAX | F::SEG_MAX | F::BLK_SIZE | F::TOPOLOGY | F::MQ;
    let requests = F::FLUSH | F::CONFIG_WCE | F::DISCARD | F::WRITE_ZEROES;
    let features = match access {
        Access::ReadWrite => limits | requests,
        Access::ReadOnly => limits | requests | F::RO,
    };
    features.into()
}

/// The most segments of data in a request: a header and a status go with them into the longest
/// queue.
pub(super) fn seg_max(config: &SimBlkConfig) -> u16 {
    config.sim.queue_size.saturating_sub(2).max(1)
}

/// The space as it is in the beginning.
pub(super) fn space(config: &SimBlkConfig) -> [u8; CONFIG_MAX] {
    let mut space = [0; CONFIG_MAX];
    let block_sectors = u64::from(config.block_size) / SECTOR_LEN;
    let alignment = u32::try_from(block_sectors).expect("a block is at most 65536 bytes");
    blk::CAPACITY.put(&mut space, config.disk.capacity() / SECTOR_LEN);
    blk::SIZE_MAX.put(&mut space, SIZE_MAX);
    blk::SEG_MAX.put(&mut space, seg_max(config).into());
    blk::BLK_SIZE.put(&mut space, config.block_size);
    // A physical block is a logical one, and one block is a good size for a request.
    blk::MIN_IO_SIZE.put(&mut space, 1);
    blk::OPT_IO_SIZE.put(&mut space, 1);
    blk::WRITEBACK.put(&mut space, 1);
    blk::NUM_QUEUES.put(&mut space, config.queues);
    blk::MAX_DISCARD_SECTORS.put(&mut space, ZERO_SECTORS_MAX);
    blk::MAX_DISCARD_SEG.put(&mut space, ZERO_SEG_MAX);
    blk::DISCARD_SECTOR_ALIGNMENT.put(&mut space, alignment);
    blk::MAX_WRITE_ZEROES_SECTORS.put(&mut space, ZERO_SECTORS_MAX);
    blk::MAX_WRITE_ZEROES_SEG.put(&mut space, ZERO_SEG_MAX);
    blk::WRITE_ZEROES_MAY_UNMAP.put(&mut space, 1);
    space
}
