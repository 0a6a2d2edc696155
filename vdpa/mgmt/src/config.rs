//! What the configuration space of a device says, field by field.
//!
//! A field is shown if the device offers the feature that the specification attaches to it.
//! Source: VIRTIO 1.2, 5.1.4 (net), 5.2.4 (block).

use vdpa::config::{blk, net};
use vdpa::device::VdpaDevice;
use vdpa::ops::OpError;
use vdpa::{Features, MacAddress};
use virtio::DeviceStatus;

use super::error::MgmtError;
use super::is_type;

/// The configuration of a device and what has been negotiated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigReport {
    /// The fields.
    pub fields: TypeConfig,
    /// The features in use, once they are settled.
    pub negotiated: Option<Features>,
}

/// The fields that belong to the type of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeConfig {
    /// A network device.
    Net(NetConfig),
    /// A block device.
    Blk(BlkConfig),
}

/// The configuration of a network device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetConfig {
    /// Its address.
    pub mac: Option<MacAddress>,
    /// `virtio_net_config.status`.
    pub status: Option<u16>,
    /// How many pairs of queues it has.
    pub max_queue_pairs: Option<u16>,
    /// Its largest packet, in bytes.
    pub mtu: Option<u16>,
}

/// The configuration of a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlkConfig {
    /// Its size, in sectors of 512 bytes.
    pub capacity: u64,
    /// The largest segment of a request, in bytes.
    pub size_max: Option<u32>,
    /// The most segments of a request.
    pub seg_max: Option<u32>,
    /// The block size, in bytes.
    pub block_size: Option<u32>,
    /// How the blocks lie on the medium.
    pub topology: Option<Topology>,
    /// How many queues it has.
    pub queues: Option<u16>,
    /// What can be given back.
    pub discard: Option<Discard>,
    /// What can be filled with zeroes.
    pub write_zeroes: Option<WriteZeroes>,
    /// Nothing can be written.
    pub read_only: bool,
    /// Writes can be made durable.
    pub flush: bool,
}

/// How blocks lie on the medium (`virtio_blk_config.topology`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Logical blocks in a physical one, as a power of two.
    pub physical_block_exponent: u8,
    /// The first logical block at the start of a physical one.
    pub alignment_offset: u8,
    /// The smallest request that makes sense, in blocks.
    pub min_io_size: u16,
    /// The best size of a request, in blocks.
    pub opt_io_size: u32,
}

/// The limits of a discard request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// The most sectors of a segment.
    pub max_sectors: u32,
    /// The most segments.
    pub max_segments: u32,
    /// Where a segment should begin, in sectors.
    pub sector_alignment: u32,
}

/// The limits of a write-zeroes request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteZeroes {
    /// The most sectors of a segment.
    pub max_sectors: u32,
    /// The most segments.
    pub max_segments: u32,
}

impl ConfigReport {
    /// Asks the device.
    pub(super) fn read(device: &VdpaDevice) -> Result<Self, MgmtError> {
        let offered = device.device_features()?;
        let fields = if is_type(device, virtio::Id::Net) {
            TypeConfig::Net(NetConfig::read(device, offered)?)
        } else if is_type(device, virtio::Id::Block) {
            TypeConfig::Blk(BlkConfig::read(device, offered)?)
        } else {
            return Err(MgmtError::Unsupported);
        };
        let agreed = device.status()?.contains(DeviceStatus::FEATURES_OK);
        let negotiated = if agreed {
            Some(device.driver_features()?)
        } else {
            None
        };
        Ok(Self { fields, negotiated })
    }
}

impl NetConfig {
    fn read(device: &VdpaDevice, offered: Features) -> Result<Self, OpError> {
        let read = |at: u32, bytes: &mut [u8]| device.read_config(at, bytes);
        Ok(Self {
            mac: net::MAC.read_if(offered, read)?.map(MacAddress),
            status: net::STATUS.read_if(offered, read)?,
            max_queue_pairs: net::MAX_VIRTQUEUE_PAIRS.read_if(offered, read)?,
            mtu: net::MTU.read_if(offered, read)?,
        })
    }
}

impl BlkConfig {
    fn read(device: &VdpaDevice, offered: Features) -> Result<Self, OpError> {
        use virtio::blk::F;
        let has = |feature: F| offered.contains(feature);
        let read = |at: u32, bytes: &mut [u8]| device.read_config(at, bytes);
        Ok(Self {
            capacity: blk::CAPACITY.read(read)?,
            size_max: blk::SIZE_MAX.read_if(offered, read)?,
            seg_max: blk::SEG_MAX.read_if(offered, read)?,
            block_size: blk::BLK_SIZE.read_if(offered, read)?,
            topology: if has(F::TOPOLOGY) {
                Some(Topology {
                    physical_block_exponent: blk::PHYSICAL_BLOCK_EXP.read(read)?,
                    alignment_offset: blk::ALIGNMENT_OFFSET.read(read)?,
                    min_io_size: blk::MIN_IO_SIZE.read(read)?,
                    opt_io_size: blk::OPT_IO_SIZE.read(read)?,
                })
            } else {
                None
            },
            queues: blk::NUM_QUEUES.read_if(offered, read)?,
            discard: if has(F::DISCARD) {
                Some(Discard {
                    max_sectors: blk::MAX_DISCARD_SECTORS.read(read)?,
                    max_segments: blk::MAX_DISCARD_SEG.read(read)?,
                    sector_alignment: blk::DISCARD_SECTOR_ALIGNMENT.read(read)?,
                })
            } else {
                None
            },
            write_zeroes: if has(F::WRITE_ZEROES) {
                Some(WriteZeroes {
                    max_sectors: blk::MAX_WRITE_ZEROES_SECTORS.read(read)?,
                    max_segments: blk::MAX_WRITE_ZEROES_SEG.read(read)?,
                })
            } else {
                None
            },
            read_only: has(F::RO),
            flush: has(F::FLUSH),
        })
    }
}
