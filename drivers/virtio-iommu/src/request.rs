//! What an IOMMU is asked, and how its answer begins (VIRTIO 1.2, 5.13.6).

use vdpa::iotlb::{IovaRange, Permission};
use virtq::DmaAddr;

/// `virtio_iommu_req_head`: the type and three bytes of zeroes.
const HEAD: usize = 4;
/// What the device reads of an ATTACH or DETACH request.
const ATTACH: usize = HEAD + 4 + 4 + 8;
/// What it reads of a MAP request.
const MAP: usize = HEAD + 4 + 3 * 8 + 4;
/// What it reads of an UNMAP request.
const UNMAP: usize = HEAD + 4 + 2 * 8 + 4;
/// What it reads of a PROBE request.
pub(crate) const PROBE: usize = HEAD + 4 + 64;
/// What it reads of any other request at most.
pub(crate) const REQUEST_MAX: usize = MAP;
/// `virtio_iommu_req_tail`: the status and three bytes of zeroes.
pub(crate) const TAIL: usize = 4;

// The structures of the specification, without their tails.
const _: () = assert!(ATTACH + TAIL == 24 && MAP + TAIL == 40 && UNMAP + TAIL == 32 && PROBE == 72);

const MAP_READ: u32 = 1 << 0;
const MAP_WRITE: u32 = 1 << 1;
const MAP_MMIO: u32 = 1 << 2;

/// What an IOMMU is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Attach {
        domain: u32,
        endpoint: u32,
    },
    Detach {
        domain: u32,
        endpoint: u32,
    },
    Map {
        domain: u32,
        range: IovaRange,
        addr: DmaAddr,
        permission: Permission,
        memory: Memory,
    },
    Unmap {
        domain: u32,
        range: IovaRange,
    },
    Probe {
        endpoint: u32,
    },
}

/// What a mapping leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Ram,
    /// Device registers, on an IOMMU that wants to know.
    Registers,
}

impl Request {
    /// Writes the request to the beginning of `bytes`, and says how long it is.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn encode(&self, bytes: &mut [u8]) -> usize {
        let (kind, len) = self.shape();
        let mut rest = &mut bytes[..len];
        rest.fill(0);
        put(&mut rest, &[kind, 0, 0, 0]);
        match *self {
            Self::Attach { domain, endpoint } | Self::Detach { domain, endpoint } => {
                put(&mut rest, &domain.to_le_bytes());
                put(&mut rest, &endpoint.to_le_bytes());
            }
            Self::Map {
                domain,
                range,
                addr,
                permission,
                memory,
            } => {
                put(&mut rest, &domain.to_le_bytes());
                put(&mut rest, &range.first().to_le_bytes());
                put(&mut rest, &range.last().to_le_bytes());
                put(&mut rest, &addr.0.to_le_bytes());
                put(&mut rest, &flags(permission, memory).to_le_bytes());
            }
            Self::Unmap { domain, range } => {
                put(&mut rest, &domain.to_le_bytes());
                put(&mut rest, &range.first().to_le_bytes());
                put(&mut rest, &range.last().to_le_bytes());
            }
            Self::Probe { endpoint } => put(&mut rest, &endpoint.to_le_bytes()),
        }
        len
    }

    /// The type, and the length of what the device reads.
    fn shape(&self) -> (u8, usize) {
        match self {
            Self::Attach { .. } => (1, ATTACH),
            Self::Detach { .. } => (2, ATTACH),
            Self::Map { .. } => (3, MAP),
            Self::Unmap { .. } => (4, UNMAP),
            Self::Probe { .. } => (5, PROBE),
        }
    }
}

fn flags(permission: Permission, memory: Memory) -> u32 {
    let flag = |condition, flag| if condition { flag } else { 0 };
    flag(permission.contains(Permission::READ), MAP_READ)
        | flag(permission.contains(Permission::WRITE), MAP_WRITE)
        | flag(memory == Memory::Registers, MAP_MMIO)
}

fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (place, behind) = core::mem::take(rest).split_at_mut(field.len());
    place.copy_from_slice(field);
    *rest = behind;
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    IoError,
    Unsupported,
    DeviceError,
    Invalid,
    Range,
    NoEntry,
    Fault,
    NoMemory,
}

impl Status {
    /// What the status field holds until the device writes it; it stands for nothing.
    pub(crate) const UNTOUCHED: u8 = 0xff;

    /// `None`, if the byte stands for nothing.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Status; 9] = [
            Status::Ok,
            Status::IoError,
            Status::Unsupported,
            Status::DeviceError,
            Status::Invalid,
            Status::Range,
            Status::NoEntry,
            Status::Fault,
            Status::NoMemory,
        ];
        ALL.get(usize::from(byte)).copied()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn encoded(request: Request) -> Vec<u8> {
        let mut bytes = [0xaa; PROBE];
        let len = request.encode(&mut bytes);
        bytes[..len].to_vec()
    }

    #[test]
    fn requests_are_laid_out_as_specified() {
        let (domain, endpoint) = (0x0102_0304, 0x0a0b_0c0d);
        let range = IovaRange::from_bounds(0x1000, 0x2fff).unwrap();
        let ids = [4, 3, 2, 1, 0xd, 0xc, 0xb, 0xa];
        let both = [&[1, 0, 0, 0][..], &ids, &[0; 8]].concat();
        assert_eq!(encoded(Request::Attach { domain, endpoint }), both);
        let both = [&[2, 0, 0, 0][..], &ids, &[0; 8]].concat();
        assert_eq!(encoded(Request::Detach { domain, endpoint }), both);
        let map = |permission, memory| {
            encoded(Request::Map {
                domain,
                range,
                addr: DmaAddr(0x55_0000_0000),
                permission,
                memory,
            })
        };
        let mut expected = vec![3, 0, 0, 0, 4, 3, 2, 1];
        expected.extend([0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x2f, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 0, 0, 0, 0x55, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(map(Permission::all(), Memory::Ram), expected);
        expected[32] = 1;
        assert_eq!(map(Permission::READ, Memory::Ram), expected);
        expected[32] = 6;
        assert_eq!(map(Permission::WRITE, Memory::Registers), expected);
        let mut expected = vec![4, 0, 0, 0, 4, 3, 2, 1];
        expected.extend([0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x2f, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 4]);
        assert_eq!(encoded(Request::Unmap { domain, range }), expected);
        let mut expected = vec![5, 0, 0, 0, 0xd, 0xc, 0xb, 0xa];
        expected.extend([0; 64]);
        assert_eq!(encoded(Request::Probe { endpoint }), expected);
    }

    #[test]
    fn a_status_is_one_of_the_specifications() {
        assert_eq!(Status::from_byte(0), Some(Status::Ok));
        assert_eq!(Status::from_byte(8), Some(Status::NoMemory));
        for byte in 9..=Status::UNTOUCHED {
            assert_eq!(Status::from_byte(byte), None);
        }
    }
}
