//! What the configuration space of a device says, field by field.
//!
//! A field is shown if the device offers the feature that the specification attaches to it.
//! Source: VIRTIO 1.2, 5.1.4 (net), 5.2.4 (block).

use vdpa::device::VdpaDevice;
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
        let space = Space(device);
        let fields = if is_type(device, virtio::Id::Net) {
            TypeConfig::Net(NetConfig::read(&space, offered)?)
        } else if is_type(device, virtio::Id::Block) {
            TypeConfig::Blk(BlkConfig::read(&space, offered)?)
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
    fn read(space: &Space<'_>, offered: Features) -> Result<Self, MgmtError> {
        use virtio::net::F;
        let has = |feature: F| offered.contains(feature);
        Ok(Self {
            mac: space.field(has(F::MAC), 0)?.map(MacAddress),
            status: space.field(has(F::STATUS), 6)?.map(u16::from_le_bytes),
            max_queue_pairs: space
                .field(has(F::MQ) || has(F::RSS), 8)?
                .map(u16::from_le_bytes),
            mtu: space.field(has(F::MTU), 10)?.map(u16::from_le_bytes),
        })
    }
}

impl BlkConfig {
    fn read(space: &Space<'_>, offered: Features) -> Result<Self, MgmtError> {
        use virtio::blk::F;
        let has = |feature: F| offered.contains(feature);
        let u32_if = |feature, offset| -> Result<_, MgmtError> {
            Ok(space.field(has(feature), offset)?.map(u32::from_le_bytes))
        };
        Ok(Self {
            capacity: space
                .field(true, 0)?
                .map(u64::from_le_bytes)
                .unwrap_or_default(),
            size_max: u32_if(F::SIZE_MAX, 8)?,
            seg_max: u32_if(F::SEG_MAX, 12)?,
            block_size: u32_if(F::BLK_SIZE, 20)?,
            topology: space.field(has(F::TOPOLOGY), 24)?.map(Topology::from_bytes),
            queues: space.field(has(F::MQ), 34)?.map(u16::from_le_bytes),
            discard: space.field(has(F::DISCARD), 36)?.map(Discard::from_bytes),
            write_zeroes: space
                .field(has(F::WRITE_ZEROES), 48)?
                .map(WriteZeroes::from_bytes),
            read_only: has(F::RO),
            flush: has(F::FLUSH),
        })
    }
}

impl Topology {
    fn from_bytes(bytes: [u8; 8]) -> Self {
        let [exponent, offset, min0, min1, opt @ ..] = bytes;
        Self {
            physical_block_exponent: exponent,
            alignment_offset: offset,
            min_io_size: u16::from_le_bytes([min0, min1]),
            opt_io_size: u32::from_le_bytes(opt),
        }
    }
}

impl Discard {
    fn from_bytes(bytes: [u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, align @ ..] = bytes;
        Self {
            max_sectors: u32::from_le_bytes([a, b, c, d]),
            max_segments: u32::from_le_bytes([e, f, g, h]),
            sector_alignment: u32::from_le_bytes(align),
        }
    }
}

impl WriteZeroes {
    fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, segments @ ..] = bytes;
        Self {
            max_sectors: u32::from_le_bytes([a, b, c, d]),
            max_segments: u32::from_le_bytes(segments),
        }
    }
}

/// A device's configuration space, to read fields from.
struct Space<'a>(&'a VdpaDevice);

impl Space<'_> {
    /// The bytes at `offset`, if there is such a field.
    fn field<const N: usize>(
        &self,
        exists: bool,
        offset: u32,
    ) -> Result<Option<[u8; N]>, MgmtError> {
        if !exists {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.0.read_config(offset, &mut bytes)?;
        Ok(Some(bytes))
    }
}
