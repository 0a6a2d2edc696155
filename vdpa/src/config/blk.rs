//! `virtio_blk_config` (VIRTIO 1.2, 5.2.4).

use super::{Field, FieldLayout};

/// The size in sectors of 512 bytes.
pub const CAPACITY: Field<u64> = Field::always(0);
/// The longest segment in bytes. With `SIZE_MAX`.
pub const SIZE_MAX: Field<u32> = Field::with(8, 1 << 1);
/// The most segments of a request. With `SEG_MAX`.
pub const SEG_MAX: Field<u32> = Field::with(12, 1 << 2);
/// A part of the geometry. With `GEOMETRY`.
const CYLINDERS: Field<u16> = Field::with(16, 1 << 4);
/// A part of the geometry. With `GEOMETRY`.
const HEADS: Field<u8> = Field::with(18, 1 << 4);
/// A part of the geometry. With `GEOMETRY`.
const SECTORS: Field<u8> = Field::with(19, 1 << 4);
/// The block size in bytes. With `BLK_SIZE`.
pub const BLK_SIZE: Field<u32> = Field::with(20, 1 << 6);
/// Blocks in a physical one, as a power of two. With `TOPOLOGY`.
pub const PHYSICAL_BLOCK_EXP: Field<u8> = Field::with(24, 1 << 10);
/// The first block at the start of a physical one. With `TOPOLOGY`.
pub const ALIGNMENT_OFFSET: Field<u8> = Field::with(25, 1 << 10);
/// The smallest request that makes sense, in blocks. With `TOPOLOGY`.
pub const MIN_IO_SIZE: Field<u16> = Field::with(26, 1 << 10);
/// The best size of a request, in blocks. With `TOPOLOGY`.
pub const OPT_IO_SIZE: Field<u32> = Field::with(28, 1 << 10);
/// Whether the cache keeps what is written. With `CONFIG_WCE`.
pub const WRITEBACK: Field<u8> = Field::with(32, 1 << 11);
/// How many queues there are. With `MQ`.
pub const NUM_QUEUES: Field<u16> = Field::with(34, 1 << 12);
/// The most sectors of a segment to discard. With `DISCARD`.
pub const MAX_DISCARD_SECTORS: Field<u32> = Field::with(36, 1 << 13);
/// The most segments to discard. With `DISCARD`.
pub const MAX_DISCARD_SEG: Field<u32> = Field::with(40, 1 << 13);
/// Where a segment to discard should begin, in sectors. With `DISCARD`.
pub const DISCARD_SECTOR_ALIGNMENT: Field<u32> = Field::with(44, 1 << 13);
/// The most sectors of a segment to fill with zeroes. With `WRITE_ZEROES`.
pub const MAX_WRITE_ZEROES_SECTORS: Field<u32> = Field::with(48, 1 << 14);
/// The most segments to fill with zeroes. With `WRITE_ZEROES`.
pub const MAX_WRITE_ZEROES_SEG: Field<u32> = Field::with(52, 1 << 14);
/// Whether they may be given back. With `WRITE_ZEROES`.
pub const WRITE_ZEROES_MAY_UNMAP: Field<u8> = Field::with(56, 1 << 14);

/// The size of a space with all of them, and the padding behind the last.
pub const SIZE: usize = 60;

/// All of them, in order.
pub const FIELDS: &[FieldLayout] = &[
    CAPACITY.layout(),
    SIZE_MAX.layout(),
    SEG_MAX.layout(),
    CYLINDERS.layout(),
    HEADS.layout(),
    SECTORS.layout(),
    BLK_SIZE.layout(),
    PHYSICAL_BLOCK_EXP.layout(),
    ALIGNMENT_OFFSET.layout(),
    MIN_IO_SIZE.layout(),
    OPT_IO_SIZE.layout(),
    WRITEBACK.layout(),
    NUM_QUEUES.layout(),
    MAX_DISCARD_SECTORS.layout(),
    MAX_DISCARD_SEG.layout(),
    DISCARD_SECTOR_ALIGNMENT.layout(),
    MAX_WRITE_ZEROES_SECTORS.layout(),
    MAX_WRITE_ZEROES_SEG.layout(),
    WRITE_ZEROES_MAY_UNMAP.layout(),
];
