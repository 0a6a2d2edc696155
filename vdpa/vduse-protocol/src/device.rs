//! What a device is made from, and what Linux refuses to make.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::DecodeError;
use crate::layout::{DevConfig, at};
use crate::wire::{Record, put};

/// The room for a device's name, with the zero behind it.
pub const NAME_LEN: usize = 256;
/// The largest configuration space, and the largest alignment of a queue: a page.
pub const CONFIG_MAX: usize = 4096;
/// The most queues, groups and address spaces.
const COUNT_MAX: u32 = 0xffff;
const HEADER: usize = size_of::<DevConfig>();

/// The version of the interface, which each device keeps from its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiVersion {
    /// The first one.
    V0,
    /// With groups of queues and address spaces (Linux 7.0).
    V1,
}

/// Features of the interface beyond its version, as bits. They hold for devices that are created
/// afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolFeatures(pub u64);

impl ProtocolFeatures {
    /// A queue is made ready and not ready by a message.
    pub const QUEUE_READY: Self = Self(1 << 0);
    /// A device is suspended by a message.
    pub const SUSPEND: Self = Self(1 << 1);
    const ALL: u64 = Self::QUEUE_READY.0 | Self::SUSPEND.0;

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether each of them is known.
    #[must_use]
    pub const fn are_known(self) -> bool {
        self.0 & !Self::ALL == 0
    }
}

/// What a device is made from (`vduse_dev_config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// What it is called.
    pub name: String,
    /// Who has made it.
    pub vendor_id: u32,
    /// The virtio device type.
    pub device_id: u32,
    /// The features that it offers, as bits.
    pub features: u64,
    /// How many queues it has.
    pub queues: u32,
    /// The alignment of the parts of a queue, in bytes.
    pub queue_align: u32,
    /// How many groups of queues there are; 1 in version 0.
    pub groups: u32,
    /// How many address spaces there are; 1 in version 0.
    pub address_spaces: u32,
    /// The configuration space.
    pub config: Vec<u8>,
}

/// Why a device of such a configuration is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It has no name, or one without room for the zero behind it.
    #[error("a device's name has between 1 and 255 bytes, and none of them is zero")]
    Name,
    /// Version 0 knows one group and one address space, version 1 between 1 and 65535.
    #[error(
        "there must be between 1 and 65535 groups and address spaces, one of each in version 0"
    )]
    Groups,
    /// The alignment is above a page.
    #[error("a queue's alignment is at most a page")]
    QueueAlign,
    /// There are too many queues.
    #[error("a device has at most 65535 queues")]
    QueueCount,
    /// The configuration space is larger than a page.
    #[error("a configuration space is at most a page")]
    ConfigSize,
    /// The type is neither network card, disk nor file system.
    #[error("a device is a network card, a disk or a file system")]
    DeviceType,
    /// The device's addresses are always translated, so its driver must know.
    #[error("a device must offer ACCESS_PLATFORM")]
    AccessPlatform,
    /// The driver of a disk would write to the configuration space.
    #[error("a disk must not offer CONFIG_WCE")]
    WriteCacheSwitch,
    /// A driver that waits for the control queue would wait for the program.
    #[error("a network card must not offer CTRL_VQ")]
    ControlQueue,
    /// Network cards have no legacy interface.
    #[error("a network card must offer VERSION_1")]
    Legacy,
}

const NET: u32 = 1;
const BLK: u32 = 2;
const FS: u32 = 26;
const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;
const BLK_CONFIG_WCE: u64 = 1 << 11;
const NET_CTRL_VQ: u64 = 1 << 17;

impl DeviceConfig {
    /// Whether Linux makes such a device: its rules for devices that it does not trust.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self, version: ApiVersion) -> Result<(), ConfigError> {
        let offers = |feature| self.features & feature != 0;
        let most = match version {
            ApiVersion::V0 => 1,
            ApiVersion::V1 => COUNT_MAX,
        };
        let counted = |count| (1..=most).contains(&count);
        if self.name.is_empty() || self.name.len() >= NAME_LEN || self.name.contains('\0') {
            Err(ConfigError::Name)
        } else if !counted(self.groups) || !counted(self.address_spaces) {
            Err(ConfigError::Groups)
        } else if self.queue_align as usize > CONFIG_MAX {
            Err(ConfigError::QueueAlign)
        } else if self.config.len() > CONFIG_MAX {
            Err(ConfigError::ConfigSize)
        } else if self.queues > COUNT_MAX {
            Err(ConfigError::QueueCount)
        } else if ![NET, BLK, FS].contains(&self.device_id) {
            Err(ConfigError::DeviceType)
        } else if !offers(ACCESS_PLATFORM) {
            Err(ConfigError::AccessPlatform)
        } else if self.device_id == BLK && offers(BLK_CONFIG_WCE) {
            Err(ConfigError::WriteCacheSwitch)
        } else if self.device_id == NET && offers(NET_CTRL_VQ) {
            Err(ConfigError::ControlQueue)
        } else if self.device_id == NET && !offers(VERSION_1) {
            Err(ConfigError::Legacy)
        } else {
            Ok(())
        }
    }

    /// The structure with the configuration space behind it. The configuration has been
    /// [checked](Self::check).
    #[must_use]
    pub fn encode(&self, version: ApiVersion) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let name = self.name.as_bytes();
        let room = name.len().min(NAME_LEN - 1);
        bytes[..room].copy_from_slice(&name[..room]);
        put(
            &mut bytes,
            at!(DevConfig.vendor_id),
            self.vendor_id.to_ne_bytes(),
        );
        put(
            &mut bytes,
            at!(DevConfig.device_id),
            self.device_id.to_ne_bytes(),
        );
        put(
            &mut bytes,
            at!(DevConfig.features),
            self.features.to_ne_bytes(),
        );
        put(&mut bytes, at!(DevConfig.vq_num), self.queues.to_ne_bytes());
        put(
            &mut bytes,
            at!(DevConfig.vq_align),
            self.queue_align.to_ne_bytes(),
        );
        if version >= ApiVersion::V1 {
            put(
                &mut bytes,
                at!(DevConfig.ngroups),
                self.groups.to_ne_bytes(),
            );
            put(
                &mut bytes,
                at!(DevConfig.nas),
                self.address_spaces.to_ne_bytes(),
            );
        }
        let size = u32::try_from(self.config.len()).unwrap_or(u32::MAX);
        put(&mut bytes, at!(DevConfig.config_size), size.to_ne_bytes());
        bytes.extend_from_slice(&self.config);
        bytes
    }

    /// Takes the structure apart. Whether such a device is made is up to [`check`](Self::check).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8], version: ApiVersion) -> Result<Self, DecodeError> {
        let short = DecodeError::Length {
            expected: HEADER,
            found: bytes.len(),
        };
        let (header, config) = bytes.split_at_checked(HEADER).ok_or(short)?;
        let header = Record::new(header, HEADER)?;
        // In version 0 the counts are a part of what is reserved.
        let reserved = match version {
            ApiVersion::V0 => at!(DevConfig.ngroups),
            ApiVersion::V1 => at!(DevConfig.reserved),
        };
        header.check_reserved(reserved..at!(DevConfig.config_size))?;
        let count = |at| match version {
            ApiVersion::V0 => 1,
            ApiVersion::V1 => header.u32(at),
        };
        // Nothing behind the end is read.
        Record::new(config, header.u32(at!(DevConfig.config_size)) as usize)?;
        Ok(Self {
            name: decode_name(&header.bytes(at!(DevConfig.name)))?,
            vendor_id: header.u32(at!(DevConfig.vendor_id)),
            device_id: header.u32(at!(DevConfig.device_id)),
            features: header.u64(at!(DevConfig.features)),
            queues: header.u32(at!(DevConfig.vq_num)),
            queue_align: header.u32(at!(DevConfig.vq_align)),
            groups: count(at!(DevConfig.ngroups)),
            address_spaces: count(at!(DevConfig.nas)),
            config: config.to_owned(),
        })
    }
}

/// A text that ends with the first zero; what is behind does not matter.
fn decode_name(bytes: &[u8; NAME_LEN]) -> Result<String, DecodeError> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let end = end.filter(|end| *end > 0).ok_or(DecodeError::Name)?;
    let name = str::from_utf8(&bytes[..end]).map_err(|_| DecodeError::Name)?;
    Ok(name.to_owned())
}
