//! What a disk says of itself in its configuration space (VIRTIO 1.2, 5.2.4), checked.

use vdpa::bus::ProbeError;
use vdpa::config::blk;
use vdpa::features::Features;
use vdpa::ops::OpError;
use virtio::blk::F;
use virtio_bus::VirtioDevice;

use super::error::Unsuitable;
use super::slot::{CONTROL_LEN, DATA_SEGMENTS_MAX};

/// The unit of positions and capacities (VIRTIO 1.2, 5.2.4), whatever the block size.
pub const SECTOR_LEN: u32 = 512;
/// The longest segment of a disk that says 0, as Linux has it.
const SEGMENT_LEN: u32 = 64 * 1024;
/// The largest logical block size that is believed.
const BLOCK_LEN_MAX: u32 = 64 * 1024;

/// What a disk can do, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) read_only: bool,
    /// Whether the disk may keep written data in a cache that [`Disk::flush`](super::Disk::flush)
    /// empties.
    pub(super) has_cache: bool,
    /// The logical block size in bytes: a multiple of [`SECTOR_LEN`].
    pub(super) block_len: u32,
    /// The longest segment in bytes.
    pub(super) segment_max: u32,
    /// The most data in one request, in bytes: a multiple of the block size.
    pub(super) transfer_max: u32,
}

/// What the fields of the configuration space hold; without its feature, a field does not exist.
#[derive(Clone, Copy, Debug)]
struct Fields {
    size_max: Option<u32>,
    seg_max: Option<u32>,
    blk_size: Option<u32>,
}

impl Limits {
    /// Reads and checks the limits of a disk whose queue has `queue_size` entries.
    pub(super) fn read(
        device: &VirtioDevice,
        features: Features,
        queue_size: u16,
    ) -> Result<Self, ProbeError> {
        let read = |at: u32, bytes: &mut [u8]| device.read_config(at, bytes);
        let fields = Fields {
            size_max: blk::SIZE_MAX.read_if(features, read)?,
            seg_max: blk::SEG_MAX.read_if(features, read)?,
            blk_size: blk::BLK_SIZE.read_if(features, read)?,
        };
        Self::new(features, fields, queue_size).map_err(ProbeError::unsuitable)
    }

    fn new(features: Features, fields: Fields, queue_size: u16) -> Result<Self, Unsuitable> {
        let block_len = fields.blk_size.unwrap_or(SECTOR_LEN);
        if !block_len.is_power_of_two() || !(SECTOR_LEN..=BLOCK_LEN_MAX).contains(&block_len) {
            return Err(Unsuitable::BlockSize);
        }
        // QEMU's `vhost-user-blk` server offers the field and leaves it at zero.
        let segment_max = match fields.size_max {
            Some(0) => SEGMENT_LEN,
            given => given.unwrap_or(u32::MAX),
        };
        // The header and the status take two (VIRTIO 1.2, 2.7.5.3.1: with an indirect table, too).
        if queue_size < 3 {
            return Err(Unsuitable::ShortQueue);
        }
        // A disk that leaves `seg_max` at zero still takes one segment.
        let segments_max = fields
            .seg_max
            .map_or(DATA_SEGMENTS_MAX, |max| {
                u16::try_from(max.max(1)).unwrap_or(u16::MAX)
            })
            .min(DATA_SEGMENTS_MAX)
            .min(queue_size - 2);
        // A chain, with its header and status, is not longer than 2^32 - 1 bytes.
        let chain_max = u32::MAX - u32::try_from(CONTROL_LEN).expect("a few bytes");
        let transfer_max = segment_max
            .saturating_mul(u32::from(segments_max))
            .min(chain_max);
        let transfer_max = transfer_max & !(block_len - 1);
        if transfer_max == 0 {
            return Err(Unsuitable::ShortRequest);
        }
        Ok(Self {
            read_only: features.contains(F::RO),
            has_cache: features.contains(F::FLUSH),
            block_len,
            segment_max,
            transfer_max,
        })
    }

    /// In how many segments the data of a request lie at most.
    pub(super) fn data_segments(&self) -> u16 {
        let most = self.transfer_max.div_ceil(self.segment_max);
        u16::try_from(most)
            .unwrap_or(u16::MAX)
            .min(DATA_SEGMENTS_MAX)
    }
}

/// The size of the disk in sectors of 512 bytes.
pub(super) fn read_capacity(device: &VirtioDevice) -> Result<u64, OpError> {
    blk::CAPACITY.read(|at, bytes| device.read_config(at, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BlkError;

    const NOTHING: Fields = Fields {
        size_max: None,
        seg_max: None,
        blk_size: None,
    };

    fn limits(fields: Fields, queue_size: u16) -> Result<Limits, Unsuitable> {
        Limits::new(Features::EMPTY, fields, queue_size)
    }

    #[test]
    fn a_disk_without_limits_takes_nearly_four_gibibytes() {
        let limits = limits(NOTHING, 256).unwrap();
        assert_eq!(
            (limits.block_len, limits.transfer_max),
            (512, u32::MAX - 511)
        );
    }

    #[test]
    fn segments_times_their_size_is_the_most_in_one_request() {
        let fields = Fields {
            size_max: Some(4096),
            seg_max: Some(3),
            ..NOTHING
        };
        assert_eq!(limits(fields, 256).unwrap().transfer_max, 3 * 4096);
        assert_eq!(limits(fields, 4).unwrap().transfer_max, 2 * 4096);
        let fields = Fields {
            seg_max: Some(254),
            ..fields
        };
        assert_eq!(limits(fields, 256).unwrap().transfer_max, 16 * 4096);
        let fields = Fields {
            size_max: Some(1000),
            seg_max: Some(0),
            ..NOTHING
        };
        assert_eq!(limits(fields, 256).unwrap().transfer_max, 512);
    }

    #[test]
    fn a_segment_of_no_length_is_as_long_as_in_linux() {
        let fields = Fields {
            size_max: Some(0),
            ..NOTHING
        };
        let limits = limits(fields, 256).unwrap();
        assert_eq!(limits.segment_max, 65_536);
        assert_eq!(limits.transfer_max, 16 * 65_536);
    }

    #[test]
    fn impossible_limits_are_refused() {
        for blk_size in [0, 256, 513, 3 * 512, 128 * 1024] {
            let fields = Fields {
                blk_size: Some(blk_size),
                ..NOTHING
            };
            assert_eq!(
                limits(fields, 256),
                Err(Unsuitable::BlockSize),
                "{blk_size}"
            );
        }
        let fields = Fields {
            size_max: Some(511),
            seg_max: Some(1),
            ..NOTHING
        };
        assert_eq!(limits(fields, 256), Err(Unsuitable::ShortRequest));
        // No descriptor is left for data.
        assert_eq!(limits(NOTHING, 2), Err(Unsuitable::ShortQueue));
    }

    #[test]
    fn ranges_are_in_whole_blocks_and_do_not_wrap() {
        let limits = limits(
            Fields {
                blk_size: Some(4096),
                ..NOTHING
            },
            256,
        )
        .unwrap();
        assert_eq!(limits.check(24, 8, 8192), Ok(()));
        assert_eq!(limits.check(23, 8, 8192), Err(BlkError::OutOfRange));
        assert_eq!(limits.check(24, 4, 4096), Err(BlkError::Unaligned));
        assert_eq!(limits.check(24, 8, 512), Err(BlkError::Unaligned));
        let end = limits.check(u64::MAX, u64::MAX - 7, 4096);
        assert_eq!(end, Err(BlkError::OutOfRange));
    }
}
