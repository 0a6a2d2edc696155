//! What the device is made from.

use nbd_client::Export;
use vdpa::Features;
use vdpa::blk::SECTOR_LEN;
use vdpa::config::blk;
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Task, TaskError};
use virtio::blk::F;

use crate::request::RANGE_SECTORS;
use crate::{QUEUE, QUEUE_SIZE};

/// What the device of an export is made from.
#[must_use]
pub fn config(name: &str, export: &Export) -> DeviceConfig {
    let mut space = [0; blk::SIZE];
    let mut kinds = F::SEG_MAX | F::BLK_SIZE;
    let block = u64::from(export.blocks().min).max(SECTOR_LEN);
    let size = export.size() - export.size() % block;
    blk::CAPACITY.put(&mut space, size / SECTOR_LEN);
    blk::BLK_SIZE.put(&mut space, u32::try_from(block).unwrap_or(u32::MAX));
    blk::SEG_MAX.put(&mut space, u32::from(QUEUE_SIZE) - 2);
    let may = [
        (export.is_read_only(), F::RO),
        (export.has_flush(), F::FLUSH),
        (export.has_trim() && !export.is_read_only(), F::DISCARD),
        (
            export.has_write_zeroes() && !export.is_read_only(),
            F::WRITE_ZEROES,
        ),
    ];
    for (_, feature) in may.into_iter().filter(|(has, _)| *has) {
        kinds |= feature;
    }
    let sectors = u32::try_from(block / SECTOR_LEN).unwrap_or(1);
    let most = RANGE_SECTORS - RANGE_SECTORS % sectors;
    if kinds.contains(F::DISCARD) {
        blk::MAX_DISCARD_SECTORS.put(&mut space, most);
        blk::MAX_DISCARD_SEG.put(&mut space, 1);
        blk::DISCARD_SECTOR_ALIGNMENT.put(&mut space, sectors);
    }
    if kinds.contains(F::WRITE_ZEROES) {
        blk::MAX_WRITE_ZEROES_SECTORS.put(&mut space, most);
        blk::MAX_WRITE_ZEROES_SEG.put(&mut space, 1);
        blk::WRITE_ZEROES_MAY_UNMAP.put(&mut space, 1);
    }
    let ring = virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX | virtio::F::RING_PACKED;
    let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
    let features = Features::from(kinds) | ring.into() | base.into();
    DeviceConfig {
        name: name.into(),
        vendor_id: 0,
        device_id: u8::from(virtio::Id::Block).into(),
        features: features.bits() as u64,
        queues: 1,
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: space.into(),
    }
}

/// Says what the queue can be.
///
/// # Errors
/// As [`Task::set_up_queue`].
pub fn set_up(task: &Task) -> Result<(), TaskError> {
    task.set_up_queue(QueueSetup {
        index: QUEUE.into(),
        size_max: QUEUE_SIZE,
        group: 0,
    })
}
