//! The header in front of every frame (VIRTIO 1.2, 5.1.6): `virtio_net_hdr` as bytes.
//!
//! With `VIRTIO_F_VERSION_1` it always has the field `num_buffers`, so it is always 12 bytes long.

use virtio::le16;
use virtio::net::{Hdr, HdrF};

/// The length of an Ethernet header in bytes.
pub(super) const ETHERNET_LEN: usize = 14;
/// The length of the header in bytes.
pub(super) const HEADER_LEN: usize = size_of::<Hdr>();

/// Says in a header that is zero that the device finishes the checksum: it sums up from `start` of
/// the frame on, and stores the result `offset` behind.
#[inline]
pub(super) fn needs_checksum(header: &mut [u8; HEADER_LEN], start: usize, offset: usize) {
    // Both lie in the headers of a frame, which end below 64 KiB.
    header[0] = HdrF::NEEDS_CSUM.bits();
    header[6..8].copy_from_slice(&(start as u16).to_le_bytes());
    header[8..10].copy_from_slice(&(offset as u16).to_le_bytes());
}

/// The header that starts `bytes`, as the device wrote it; `None` if there are too few bytes.
#[inline]
pub(super) fn decode(bytes: &[u8]) -> Option<Hdr> {
    let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let word = |at: usize| le16::from_ne(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    Some(Hdr {
        flags: HdrF::from_bits_retain(bytes[0]),
        gso_type: bytes[1],
        hdr_len: word(2),
        gso_size: word(4),
        csum_start: word(6),
        csum_offset: word(8),
        num_buffers: word(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_twelve_bytes_in_the_order_of_the_specification() {
        let header = Hdr {
            flags: HdrF::NEEDS_CSUM,
            gso_type: 3,
            hdr_len: le16::from_ne(0x0405),
            gso_size: le16::from_ne(0x0607),
            csum_start: le16::from_ne(0x0809),
            csum_offset: le16::from_ne(0x0a0b),
            num_buffers: le16::from_ne(0x0c0d),
        };
        let bytes = [1, 3, 5, 4, 7, 6, 9, 8, 0x0b, 0x0a, 0x0d, 0x0c];
        let decoded = decode(&bytes).unwrap();
        assert_eq!(
            (decoded.flags, decoded.gso_type),
            (header.flags, header.gso_type)
        );
        let words = |header: &Hdr| {
            let Hdr {
                hdr_len,
                gso_size,
                csum_start,
                csum_offset,
                num_buffers,
                ..
            } = *header;
            [hdr_len, gso_size, csum_start, csum_offset, num_buffers].map(le16::to_ne)
        };
        assert_eq!(words(&decoded), words(&header));
    }

    #[test]
    fn an_unfinished_checksum_is_named_by_its_start_and_its_offset() {
        let mut bytes = [0; HEADER_LEN];
        needs_checksum(&mut bytes, 0x0122, 16);
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0x22, 0x01, 16, 0, 0, 0]);
    }

    #[test]
    fn eleven_bytes_are_no_header() {
        assert!(decode(&[0; 11]).is_none());
    }
}
