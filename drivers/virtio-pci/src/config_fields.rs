//! The fields of the device-specific configuration: how wide each is, and which feature it comes with.
//!
//! Each is read in its own width, and only where its feature is offered. Source: VIRTIO 1.2, 2.5.1, 4.1.3.1, 5.1.4
//! and 5.2.4.

use vdpa::Features;

/// Fields of one width in a row.
pub(super) struct Field {
    pub(super) offset: u8,
    pub(super) width: u8,
    pub(super) count: u8,
    /// The bits of the features that bring them, of which one is enough; 0, if they are always there.
    features: u64,
}

impl Field {
    /// Whether a device has them that offers these features.
    pub(super) fn exists(&self, offered: Features) -> bool {
        self.features == 0 || offered.bits() & u128::from(self.features) != 0
    }
}

const fn field(offset: u8, width: u8, count: u8, features: u64) -> Field {
    Field {
        offset,
        width,
        count,
        features,
    }
}

/// `virtio_net_config`.
const NET: &[Field] = &[
    // mac: MAC
    field(0, 1, 6, 1 << 5),
    // status: STATUS
    field(6, 2, 1, 1 << 16),
    // max_virtqueue_pairs: MQ, RSS
    field(8, 2, 1, 1 << 22 | 1 << 60),
    // mtu: MTU
    field(10, 2, 1, 1 << 3),
    // speed, duplex: SPEED_DUPLEX
    field(12, 4, 1, 1 << 63),
    field(16, 1, 1, 1 << 63),
    // rss_max_key_size, rss_max_indirection_table_length, supported_hash_types: RSS, HASH_REPORT
    field(17, 1, 1, 1 << 60 | 1 << 57),
    field(18, 2, 1, 1 << 60 | 1 << 57),
    field(20, 4, 1, 1 << 60 | 1 << 57),
];

/// `virtio_blk_config`.
const BLK: &[Field] = &[
    // capacity
    field(0, 4, 2, 0),
    // size_max: SIZE_MAX
    field(8, 4, 1, 1 << 1),
    // seg_max: SEG_MAX
    field(12, 4, 1, 1 << 2),
    // geometry: GEOMETRY
    field(16, 2, 1, 1 << 4),
    field(18, 1, 2, 1 << 4),
    // blk_size: BLK_SIZE
    field(20, 4, 1, 1 << 6),
    // topology: TOPOLOGY
    field(24, 1, 2, 1 << 10),
    field(26, 2, 1, 1 << 10),
    field(28, 4, 1, 1 << 10),
    // writeback: CONFIG_WCE
    field(32, 1, 1, 1 << 11),
    // num_queues: MQ
    field(34, 2, 1, 1 << 12),
    // max_discard_sectors, max_discard_seg, discard_sector_alignment: DISCARD
    field(36, 4, 3, 1 << 13),
    // max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap: WRITE_ZEROES
    field(48, 4, 2, 1 << 14),
    field(56, 1, 1, 1 << 14),
];

/// The fields of a device of this type, if they are known.
pub(super) fn of(device_type: u32) -> Option<&'static [Field]> {
    match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Net) => Some(NET),
        Ok(virtio::Id::Block) => Some(BLK),
        _ => None,
    }
}
