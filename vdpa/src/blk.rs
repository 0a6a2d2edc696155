//! The structures of requests to a disk (VIRTIO 1.2, 5.2.6), for devices that are asked: nothing in
//! them is believed.

use virtio::blk::T;

/// The unit of positions and lengths in bytes, whatever the block size (VIRTIO 1.2, 5.2.4).
pub const SECTOR_LEN: u64 = 512;
/// The length of a disk's id.
pub const ID_LEN: usize = 20;
/// Of the flags of a [`Range`]: its room may be given back.
pub const UNMAP: u32 = 1;

/// What `virtio_blk_req` has before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of its type.
    pub kind: u32,
    /// Where, in sectors.
    pub sector: u64,
}

impl Header {
    /// Its length.
    pub const LEN: usize = 16;

    /// Reads it.
    #[inline]
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = *bytes;
        Self {
            kind: u32::from_le_bytes([t0, t1, t2, t3]),
            sector: u64::from_le_bytes(sector),
        }
    }

    /// Its type; `None`, if there is no such type.
    #[inline]
    #[must_use]
    pub fn request_type(&self) -> Option<T> {
        T::try_from(self.kind).ok()
    }
}

/// One range of a request to discard or to write zeroes: `virtio_blk_discard_write_zeroes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where, in sectors.
    pub sector: u64,
    /// How many.
    pub sectors: u32,
    /// [`UNMAP`]; a device refuses those that it does not know.
    pub flags: u32,
}

impl Range {
    /// Its length.
    pub const LEN: usize = 16;

    /// Reads it.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = *bytes;
        Self {
            sector: u64::from_le_bytes(sector),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        }
    }
}

/// Where `len` bytes from a sector on begin, in bytes, if they are whole sectors of a disk of so
/// many bytes.
#[inline]
#[must_use]
pub fn place(sector: u64, len: u64, capacity: u64) -> Option<u64> {
    let start = sector.checked_mul(SECTOR_LEN)?;
    let end = start.checked_add(len)?;
    let is_inside = len.is_multiple_of(SECTOR_LEN) && end <= capacity;
    is_inside.then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let bytes = [1, 0, 0, 0x80, 9, 9, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1];
        let header = Header::decode(&bytes);
        assert_eq!(header.kind, 0x8000_0001);
        assert_eq!(header.sector, 0x0102_0304_0506_0708);
        assert_eq!(header.request_type(), None);
        let range = Range::decode(&bytes);
        assert_eq!(range.sector, 0x0909_0909_8000_0001);
        assert_eq!(range.sectors, 0x0506_0708);
        assert_eq!(range.flags, 0x0102_0304);
        let kinds = [0, 1, 4, 8, 11, 13].map(|kind| Header { kind, sector: 0 }.request_type());
        let known = [
            T::In,
            T::Out,
            T::Flush,
            T::GetId,
            T::Discard,
            T::WriteZeroes,
        ];
        assert_eq!(kinds, known.map(Some));
    }

    #[test]
    fn whole_sectors_of_the_disk_have_a_place() {
        let capacity = 8 * SECTOR_LEN;
        assert_eq!(place(0, capacity, capacity), Some(0));
        assert_eq!(place(7, 512, capacity), Some(7 * 512));
        assert_eq!(place(8, 0, capacity), Some(capacity));
        for (sector, len) in [
            (0, 513),
            (0, 1),
            (8, 512),
            (7, 1024),
            (9, 0),
            (u64::MAX / 512, 512),
            (u64::MAX / 512 + 1, 512),
            (u64::MAX, 512),
            (1, u64::MAX - 511),
        ] {
            assert_eq!(place(sector, len, capacity), None, "{sector} {len}");
        }
    }
}
