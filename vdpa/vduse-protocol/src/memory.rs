//! What the program and the kernel tell each other of the device's address spaces.

use alloc::vec;
use alloc::vec::Vec;

use crate::layout::{Entry, EntryV2, EntryV2Long, IovaInfoLayout, IovaUmem, at};
use crate::wire::{Record, put};
use crate::{ApiVersion, DecodeError};

/// What a device may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// `VDUSE_ACCESS_RO`.
    Read = 1,
    /// `VDUSE_ACCESS_WO`.
    Write = 2,
    /// `VDUSE_ACCESS_RW`.
    ReadWrite = 3,
}

/// A range of addresses with the same memory behind it (`vduse_iotlb_entry`,
/// `vduse_iotlb_entry_v2`).
///
/// The program fills in the range that it asks for; the kernel answers with the first that overlaps
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IotlbEntry {
    /// Where the range starts in the file behind it.
    pub offset: u64,
    /// The first address.
    pub start: u64,
    /// The last one.
    pub last: u64,
    /// What the device may do; `None` in a question.
    pub permission: Option<Permission>,
    /// The address space. What the first entry, for version 0, has no room for.
    pub address_space: u32,
}

impl IotlbEntry {
    /// The bytes of the structure for version 0.
    pub const SIZE: usize = size_of::<Entry>();
    /// The bytes of the second structure.
    pub const SIZE_V2: usize = size_of::<EntryV2>();
    /// The bytes of the second structure in Linux 7.0.
    pub const SIZE_V2_LONG: usize = size_of::<EntryV2Long>();

    /// The structure of this size, one of the three; as any other, it is not there.
    #[must_use]
    pub fn encode(&self, size: usize) -> Option<Vec<u8>> {
        if ![Self::SIZE, Self::SIZE_V2, Self::SIZE_V2_LONG].contains(&size) {
            return None;
        }
        let mut bytes = vec![0; size];
        put(&mut bytes, at!(Entry.offset), self.offset.to_ne_bytes());
        put(&mut bytes, at!(Entry.start), self.start.to_ne_bytes());
        put(&mut bytes, at!(Entry.last), self.last.to_ne_bytes());
        let permission = self.permission.map_or(0, |permission| permission as u8);
        put(&mut bytes, at!(Entry.perm), [permission]);
        if size > Self::SIZE {
            put(
                &mut bytes,
                at!(EntryV2.asid),
                self.address_space.to_ne_bytes(),
            );
        }
        Some(bytes)
    }

    /// Takes a structure apart; its length says which.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let known = [Self::SIZE, Self::SIZE_V2_LONG].contains(&bytes.len());
        let expected = if known { bytes.len() } else { Self::SIZE_V2 };
        let record = Record::new(bytes, expected)?;
        record.check_reserved(at!(EntryV2.padding)..Self::SIZE)?;
        let address_space = if expected > Self::SIZE {
            record.check_reserved(at!(EntryV2.reserved)..expected)?;
            record.u32(at!(EntryV2.asid))
        } else {
            0
        };
        Ok(Self {
            offset: record.u64(at!(Entry.offset)),
            start: record.u64(at!(Entry.start)),
            last: record.u64(at!(Entry.last)),
            permission: match record.u8(at!(Entry.perm)) {
                0 => None,
                1 => Some(Permission::Read),
                2 => Some(Permission::Write),
                3 => Some(Permission::ReadWrite),
                other => return Err(DecodeError::Value(other.into())),
            },
            address_space,
        })
    }
}

/// Memory of the program in the place of bounce memory (`vduse_iova_umem`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserMemory {
    /// Where the program finds it.
    pub address: u64,
    /// Where the device finds it.
    pub iova: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The address space; 0 in version 0.
    pub address_space: u32,
}

impl UserMemory {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<IovaUmem>();

    /// The bytes of the structure.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, at!(IovaUmem.uaddr), self.address.to_ne_bytes());
        put(&mut bytes, at!(IovaUmem.iova), self.iova.to_ne_bytes());
        put(&mut bytes, at!(IovaUmem.size), self.size.to_ne_bytes());
        put(
            &mut bytes,
            at!(IovaUmem.asid),
            self.address_space.to_ne_bytes(),
        );
        bytes
    }

    /// Takes the structure apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8], version: ApiVersion) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        record.check_reserved(reserved(version)..Self::SIZE)?;
        Ok(Self {
            address: record.u64(at!(IovaUmem.uaddr)),
            iova: record.u64(at!(IovaUmem.iova)),
            size: record.u64(at!(IovaUmem.size)),
            address_space: record.u32(at!(IovaUmem.asid)),
        })
    }
}

/// What can be done with a range of addresses (`vduse_iova_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaInfo {
    /// The first address.
    pub start: u64,
    /// The last one.
    pub last: u64,
    /// Whether memory of the program may be put there (`VDUSE_IOVA_CAP_UMEM`).
    pub takes_user_memory: bool,
    /// The address space; 0 in version 0.
    pub address_space: u32,
}

impl IovaInfo {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<IovaInfoLayout>();
    const USER_MEMORY: u64 = 1 << 0;

    /// The bytes of the structure.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(
            &mut bytes,
            at!(IovaInfoLayout.start),
            self.start.to_ne_bytes(),
        );
        put(
            &mut bytes,
            at!(IovaInfoLayout.last),
            self.last.to_ne_bytes(),
        );
        let capability = if self.takes_user_memory {
            Self::USER_MEMORY
        } else {
            0
        };
        put(
            &mut bytes,
            at!(IovaInfoLayout.capability),
            capability.to_ne_bytes(),
        );
        put(
            &mut bytes,
            at!(IovaInfoLayout.asid),
            self.address_space.to_ne_bytes(),
        );
        bytes
    }

    /// Takes the structure apart. Capabilities that nobody knows are left out.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8], version: ApiVersion) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        record.check_reserved(reserved(version)..Self::SIZE)?;
        Ok(Self {
            start: record.u64(at!(IovaInfoLayout.start)),
            last: record.u64(at!(IovaInfoLayout.last)),
            takes_user_memory: record.u64(at!(IovaInfoLayout.capability)) & Self::USER_MEMORY != 0,
            address_space: record.u32(at!(IovaInfoLayout.asid)),
        })
    }
}

/// Where the reserved bytes of the latter two structures begin.
fn reserved(version: ApiVersion) -> usize {
    match version {
        ApiVersion::V0 => at!(IovaUmem.asid),
        ApiVersion::V1 => at!(IovaUmem.reserved),
    }
}
