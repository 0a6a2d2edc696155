//! `virtio_net_config` (VIRTIO 1.2, 5.1.4).

use super::{Field, FieldLayout};

/// The address. With `MAC`.
pub const MAC: Field<[u8; 6]> = Field::with(0, 1 << 5);
/// Whether the link is up. With `STATUS`.
pub const STATUS: Field<u16> = Field::with(6, 1 << 16);
/// How many pairs of queues there are. With `MQ` or `RSS`.
pub const MAX_VIRTQUEUE_PAIRS: Field<u16> = Field::with(8, 1 << 22 | 1 << 60);
/// The largest packet in bytes. With `MTU`.
pub const MTU: Field<u16> = Field::with(10, 1 << 3);
/// Megabits in a second. With `SPEED_DUPLEX`.
const SPEED: Field<u32> = Field::with(12, 1 << 63);
/// Whether both directions have that. With `SPEED_DUPLEX`.
const DUPLEX: Field<u8> = Field::with(16, 1 << 63);
/// The longest key in bytes. With `RSS` or `HASH_REPORT`, as the rest.
const RSS_MAX_KEY_SIZE: Field<u8> = Field::with(17, HASH);
/// The longest table in entries.
const RSS_MAX_INDIRECTION_TABLE_LENGTH: Field<u16> = Field::with(18, HASH);
/// Which packets can be hashed.
const SUPPORTED_HASH_TYPES: Field<u32> = Field::with(20, HASH);

const HASH: u64 = 1 << 60 | 1 << 57;

/// All of them, in order.
pub const FIELDS: &[FieldLayout] = &[
    MAC.layout(),
    STATUS.layout(),
    MAX_VIRTQUEUE_PAIRS.layout(),
    MTU.layout(),
    SPEED.layout(),
    DUPLEX.layout(),
    RSS_MAX_KEY_SIZE.layout(),
    RSS_MAX_INDIRECTION_TABLE_LENGTH.layout(),
    SUPPORTED_HASH_TYPES.layout(),
];
