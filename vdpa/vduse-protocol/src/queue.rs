//! What the program and the kernel tell each other of a queue, and of the configuration space.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use crate::layout::{ConfigData, VqConfig, VqEventfd, VqInfo, at};
use crate::wire::{Record, put};
use crate::{ApiVersion, DecodeError};

/// Where a queue stands, in either format (a union of `vduse_vq_state_split` and
/// `vduse_vq_state_packed`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawState(pub(crate) [u8; 8]);

/// Where a packed queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedState {
    /// The next available descriptor.
    pub avail_index: u16,
    /// The driver's wrap counter there.
    pub avail_wrap: bool,
    /// The next used descriptor.
    pub used_index: u16,
    /// The device's wrap counter there.
    pub used_wrap: bool,
}

/// The bits of an index of a packed queue.
const INDEX_MASK: u16 = 0x7fff;

impl RawState {
    /// A split queue that takes this index of the available ring next.
    #[must_use]
    pub fn of_split(avail_index: u16) -> Self {
        let mut bytes = [0; 8];
        put(&mut bytes, 0, avail_index.to_ne_bytes());
        Self(bytes)
    }

    /// A packed queue.
    #[must_use]
    pub fn of_packed(state: PackedState) -> Self {
        let mut bytes = [0; 8];
        put(&mut bytes, 0, u16::from(state.avail_wrap).to_ne_bytes());
        put(&mut bytes, 2, state.avail_index.to_ne_bytes());
        put(&mut bytes, 4, u16::from(state.used_wrap).to_ne_bytes());
        put(&mut bytes, 6, state.used_index.to_ne_bytes());
        Self(bytes)
    }

    /// The index that a split queue takes next.
    #[must_use]
    pub fn split(self) -> u16 {
        u16::from_ne_bytes([self.0[0], self.0[1]])
    }

    /// Where a packed queue stands: of its counters one bit is looked at, of its indices 15.
    #[must_use]
    pub fn packed(self) -> PackedState {
        let word = |at| u16::from_ne_bytes([self.0[at], self.0[at + 1]]);
        PackedState {
            avail_wrap: word(0) & 1 == 1,
            avail_index: word(2) & INDEX_MASK,
            used_wrap: word(4) & 1 == 1,
            used_index: word(6) & INDEX_MASK,
        }
    }
}

/// What a queue can be (`vduse_vq_config`). Told for each queue before the device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSetup {
    /// Which queue.
    pub index: u32,
    /// Its largest size; with 0 it is not there.
    pub size_max: u16,
    /// Its group; 0 in version 0.
    pub group: u32,
}

impl QueueSetup {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<VqConfig>();

    /// The bytes of the structure.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, at!(VqConfig.index), self.index.to_ne_bytes());
        put(
            &mut bytes,
            at!(VqConfig.max_size),
            self.size_max.to_ne_bytes(),
        );
        put(&mut bytes, at!(VqConfig.group), self.group.to_ne_bytes());
        bytes
    }

    /// Takes the structure apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8], version: ApiVersion) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        record.check_reserved(at!(VqConfig.reserved1)..at!(VqConfig.group))?;
        let reserved = match version {
            ApiVersion::V0 => at!(VqConfig.group),
            ApiVersion::V1 => at!(VqConfig.reserved2),
        };
        record.check_reserved(reserved..Self::SIZE)?;
        Ok(Self {
            index: record.u32(at!(VqConfig.index)),
            size_max: record.u16(at!(VqConfig.max_size)),
            group: record.u32(at!(VqConfig.group)),
        })
    }
}

/// How the driver has set a queue up (`vduse_vq_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Which queue.
    pub index: u32,
    /// How many entries it has.
    pub size: u32,
    /// The descriptor area, as the device sees it.
    pub descriptor: u64,
    /// The driver area.
    pub driver: u64,
    /// The device area.
    pub device: u64,
    /// Where it starts.
    pub state: RawState,
    /// Whether it is in use.
    pub ready: bool,
}

impl QueueInfo {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<VqInfo>();

    /// The bytes of the structure.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, at!(VqInfo.index), self.index.to_ne_bytes());
        put(&mut bytes, at!(VqInfo.num), self.size.to_ne_bytes());
        put(
            &mut bytes,
            at!(VqInfo.desc_addr),
            self.descriptor.to_ne_bytes(),
        );
        put(
            &mut bytes,
            at!(VqInfo.driver_addr),
            self.driver.to_ne_bytes(),
        );
        put(
            &mut bytes,
            at!(VqInfo.device_addr),
            self.device.to_ne_bytes(),
        );
        put(&mut bytes, at!(VqInfo.state), self.state.0);
        put(&mut bytes, at!(VqInfo.ready), [u8::from(self.ready)]);
        bytes
    }

    /// Takes the structure apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        Ok(Self {
            index: record.u32(at!(VqInfo.index)),
            size: record.u32(at!(VqInfo.num)),
            descriptor: record.u64(at!(VqInfo.desc_addr)),
            driver: record.u64(at!(VqInfo.driver_addr)),
            device: record.u64(at!(VqInfo.device_addr)),
            state: RawState(record.bytes(at!(VqInfo.state))),
            ready: yes_or_no(record.u8(at!(VqInfo.ready)).into())?,
        })
    }
}

/// The file by which a queue is kicked (`vduse_vq_eventfd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KickFd {
    /// Which queue.
    pub index: u32,
    /// The descriptor of an eventfd; `None` takes an earlier one away.
    pub fd: Option<i32>,
}

impl KickFd {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<VqEventfd>();
    /// `VDUSE_EVENTFD_DEASSIGN`.
    const NONE: i32 = -1;

    /// The bytes of the structure.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, at!(VqEventfd.index), self.index.to_ne_bytes());
        let fd = self.fd.unwrap_or(Self::NONE);
        put(&mut bytes, at!(VqEventfd.fd), fd.to_ne_bytes());
        bytes
    }

    /// Takes the structure apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        let fd = i32::from_ne_bytes(record.bytes(at!(VqEventfd.fd)));
        if fd < Self::NONE {
            return Err(DecodeError::Value(record.u32(at!(VqEventfd.fd))));
        }
        Ok(Self {
            index: record.u32(at!(VqEventfd.index)),
            fd: (fd != Self::NONE).then_some(fd),
        })
    }
}

/// New bytes in the configuration space (`vduse_config_data`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigUpdate {
    /// Where they begin.
    pub offset: u32,
    /// What is there now.
    pub bytes: Vec<u8>,
}

impl ConfigUpdate {
    const HEADER: usize = size_of::<ConfigData>();

    /// The structure with the bytes behind it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(Self::HEADER + self.bytes.len());
        bytes.extend_from_slice(&self.offset.to_ne_bytes());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    /// Takes the structure apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Length {
            expected: Self::HEADER,
            found: bytes.len(),
        };
        let (header, rest) = bytes.split_at_checked(Self::HEADER).ok_or(short)?;
        let header = Record::new(header, Self::HEADER)?;
        Record::new(rest, header.u32(at!(ConfigData.length)) as usize)?;
        Ok(Self {
            offset: header.u32(at!(ConfigData.offset)),
            bytes: rest.to_owned(),
        })
    }
}

/// A field that says yes or no.
pub(crate) fn yes_or_no(value: u32) -> Result<bool, DecodeError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Value(other)),
    }
}
