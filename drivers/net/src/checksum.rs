//! TCP and UDP checksums: where a frame keeps them, what they must be (RFC 1071, RFC 9293 3.1, RFC
//! 768, RFC 8200 8.1).
//!
//! It serves offload alone. Frames of other protocols, fragments, and frames whose headers do not
//! add up are none of its business: the stack sees them as they are.

use core::ops::Range;

use vdpa::checksum::Sum;

use super::header::{ETHERNET_LEN, needs_checksum};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
/// How many IPv6 extension headers are looked through for the transport header.
const EXTENSIONS_MAX: usize = 4;

/// Leaves the checksum of a frame to the device where it can compute it, from a start to the
/// frame's end (VIRTIO 1.2, 5.1.6.2). `header` is zero.
#[inline]
pub(super) fn offload(header: &mut [u8], frame: &mut [u8]) {
    let Some(transport) = Transport::find(frame) else {
        return;
    };
    if transport.range.end != frame.len() {
        transport.store_full(frame);
        return;
    }
    transport.store_pseudo(frame);
    let header = header.first_chunk_mut().expect("a header is longer");
    needs_checksum(header, transport.range.start, transport.field);
}

/// A TCP segment or a whole UDP datagram in a frame, and its checksum's place.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// From the transport header to the end of the payload, as offsets into the frame.
    range: Range<usize>,
    /// The checksum's offset from the transport header.
    field: usize,
    /// The sum over the pseudo header.
    pseudo: Sum,
    /// Whether a checksum of zero means that there is none (RFC 768; not over IPv6).
    optional: bool,
}

impl Transport {
    /// Finds the transport header of an Ethernet frame.
    #[inline(always)]
    pub(super) fn find(frame: &[u8]) -> Option<Self> {
        match be16(frame, 12)? {
            ETHERTYPE_IPV4 => Self::find_ipv4(frame),
            ETHERTYPE_IPV6 => Self::find_ipv6(frame),
            _ => None,
        }
    }

    /// Whether the checksum is right.
    pub(super) fn verify(&self, frame: &[u8]) -> bool {
        let absent = be16(frame, self.range.start + self.field) == Some(0);
        (self.optional && absent)
            || self.pseudo.add_bytes(&frame[self.range.clone()]).fold() == 0xffff
    }

    /// Stores the sum over the pseudo header, from which a device goes on (VIRTIO 1.2, 5.1.6.2).
    fn store_pseudo(&self, frame: &mut [u8]) {
        self.store(frame, self.pseudo.fold());
    }

    /// Stores the whole checksum.
    fn store_full(&self, frame: &mut [u8]) {
        self.store(frame, 0);
        let checksum = !self.pseudo.add_bytes(&frame[self.range.clone()]).fold();
        self.store(frame, if checksum == 0 { 0xffff } else { checksum });
    }

    fn store(&self, frame: &mut [u8], value: u16) {
        let at = self.range.start + self.field;
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    #[inline(never)]
    fn find_ipv4(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_LEN..)?;
        let version_length = *packet.first()?;
        let header_len = usize::from(version_length & 0xf) * 4;
        let total_len = usize::from(be16(packet, 2)?);
        // More fragments, or not the first: the checksum spans frames.
        let is_fragment = be16(packet, 6)? & 0x3fff != 0;
        if version_length >> 4 != 4 || header_len < IPV4_LEN || is_fragment {
            return None;
        }
        let pseudo = Sum::default().add_bytes(packet.get(12..20)?);
        let payload = ETHERNET_LEN + header_len..ETHERNET_LEN + total_len;
        Self::new(frame, payload, packet[9], pseudo, 4)
    }

    #[inline(never)]
    fn find_ipv6(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_LEN..)?;
        let addresses = packet.get(8..IPV6_LEN)?;
        if packet[0] >> 4 != 6 {
            return None;
        }
        let mut next = packet[6];
        let mut start = ETHERNET_LEN + IPV6_LEN;
        let end = start + usize::from(be16(packet, 4)?);
        for _ in 0..EXTENSIONS_MAX {
            if !matches!(next, HOP_BY_HOP | DESTINATION_OPTIONS) {
                break;
            }
            let &[following, length, ..] = frame.get(start..)? else {
                return None;
            };
            next = following;
            start += (usize::from(length) + 1) * 8;
        }
        Self::new(
            frame,
            start..end,
            next,
            Sum::default().add_bytes(addresses),
            6,
        )
    }

    /// Checks the transport header and completes the sum over the pseudo header.
    fn new(
        frame: &[u8],
        mut range: Range<usize>,
        protocol: u8,
        addresses: Sum,
        ip_version: u8,
    ) -> Option<Self> {
        let payload = frame.get(range.clone())?;
        let (field, header_len) = match protocol {
            PROTOCOL_TCP => (16, 20),
            PROTOCOL_UDP => (6, 8),
            _ => return None,
        };
        let len = match protocol {
            // The datagram may be shorter than the packet.
            PROTOCOL_UDP => usize::from(be16(payload, 4)?),
            _ => payload.len(),
        };
        if len < header_len || len > payload.len() {
            return None;
        }
        range.end = range.start + len;
        let pseudo = addresses
            .add_word(u16::from(protocol))
            .add_word(u16::try_from(len).ok()?);
        let optional = protocol == PROTOCOL_UDP && ip_version == 4;
        Some(Self {
            range,
            field,
            pseudo,
            optional,
        })
    }
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// RFC 1071 word by word, to compare with.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// An Ethernet frame with an IPv4 packet; its transport checksum is zero.
    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + payload.len() as u16).to_be_bytes());
        frame.extend([
            0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 192, 168, 255, 3,
        ]);
        frame.extend(payload);
        frame
    }

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([next, 64]);
        frame.extend((1..=32).map(|byte| byte * 7));
        frame.extend(payload);
        frame
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0x12, 0x34, 0x00, 0x35];
        datagram.extend((8 + payload.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    fn tcp(payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0xab; 20];
        segment[16..18].fill(0);
        segment.extend(payload);
        segment
    }

    fn pseudo_ipv4(protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut bytes = vec![10, 0, 2, 15, 192, 168, 255, 3, 0, protocol];
        bytes.extend((transport.len() as u16).to_be_bytes());
        bytes
    }

    #[test]
    fn the_whole_checksum_covers_pseudo_header_and_payload() {
        for payload_len in [0, 1, 2, 7, 8, 100, 1459] {
            let payload = vec![0x5a; payload_len];
            for (protocol, transport, field) in [(6, tcp(&payload), 16), (17, udp(&payload), 6)] {
                let mut frame = ipv4(protocol, &transport);
                let found = Transport::find(&frame).unwrap();
                found.store_full(&mut frame);
                let mut covered = pseudo_ipv4(protocol, &transport);
                covered.extend(&transport);
                let expected = !reference(&covered);
                assert_eq!(be16(&frame, 34 + field), Some(expected));
                assert!(Transport::find(&frame).unwrap().verify(&frame));
            }
        }
    }

    #[test]
    fn the_pseudo_header_sum_is_what_a_device_completes() {
        let segment = tcp(b"payload");
        let mut frame = ipv4(6, &segment);
        let found = Transport::find(&frame).unwrap();
        assert_eq!(
            (found.range.start, found.field, found.range.end),
            (34, 16, frame.len())
        );
        found.store_pseudo(&mut frame);
        assert_eq!(be16(&frame, 50), Some(reference(&pseudo_ipv4(6, &segment))));
        // What the device does: sum from the start to the end, complement, store.
        let completed = !reference(&frame[34..]);
        frame[50..52].copy_from_slice(&completed.to_be_bytes());
        assert!(Transport::find(&frame).unwrap().verify(&frame));
    }

    #[test]
    fn every_flipped_bit_of_a_segment_is_noticed() {
        let mut frame = ipv4(6, &tcp(b"sixteen  bytes..."));
        Transport::find(&frame).unwrap().store_full(&mut frame);
        for bit in 34 * 8..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !Transport::find(&damaged).unwrap().verify(&damaged),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn ipv6_is_summed_behind_its_extension_headers() {
        let datagram = udp(b"over six");
        let mut extended = vec![17, 0, 1, 4, 0, 0, 0, 0];
        extended.extend(&datagram);
        for (mut frame, start) in [(ipv6(17, &datagram), 54), (ipv6(0, &extended), 62)] {
            let found = Transport::find(&frame).unwrap();
            assert_eq!(found.range.start, start);
            found.store_full(&mut frame);
            let mut covered = frame[22..54].to_vec();
            covered.extend([0, 0, 0, datagram.len() as u8, 0, 0, 0, 17]);
            covered.extend(&datagram);
            assert_eq!(be16(&frame, start + 6), Some(!reference(&covered)));
            assert!(found.verify(&frame));
        }
    }

    #[test]
    fn a_zero_udp_checksum_means_none_over_ipv4_only() {
        let frame = ipv4(17, &udp(b"unsummed"));
        assert!(Transport::find(&frame).unwrap().verify(&frame));
        let frame = ipv6(17, &udp(b"unsummed"));
        assert!(!Transport::find(&frame).unwrap().verify(&frame));
    }

    #[test]
    fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
        let mut datagram = udp(&[0, 0]);
        let mut covered = pseudo_ipv4(17, &datagram);
        covered.extend(&datagram);
        datagram[8..].copy_from_slice(&(!reference(&covered)).to_be_bytes());
        let mut frame = ipv4(17, &datagram);
        Transport::find(&frame).unwrap().store_full(&mut frame);
        assert_eq!(be16(&frame, 40), Some(0xffff));
    }

    #[test]
    fn padding_behind_the_packet_is_not_summed() {
        let mut frame = ipv4(17, &udp(b"x"));
        let end = frame.len();
        Transport::find(&frame).unwrap().store_full(&mut frame);
        frame.resize(60, 0xee);
        let found = Transport::find(&frame).unwrap();
        assert_eq!(found.range.end, end);
        assert!(found.verify(&frame));
    }

    #[test]
    fn what_cannot_be_summed_is_left_alone() {
        let whole = ipv4(6, &tcp(b"data"));
        let with = |at: usize, value: u8| {
            let mut frame = whole.clone();
            frame[at] = value;
            frame
        };
        assert!(Transport::find(&whole).is_some());
        assert!(
            Transport::find(&with(12, 0x09)).is_none(),
            "another ethertype"
        );
        assert!(
            Transport::find(&with(14, 0x55)).is_none(),
            "another version"
        );
        assert!(
            Transport::find(&with(14, 0x44)).is_none(),
            "a header below 20 bytes"
        );
        assert!(
            Transport::find(&with(17, 0xff)).is_none(),
            "a length beyond the frame"
        );
        assert!(
            Transport::find(&with(17, 10)).is_none(),
            "a length below the header"
        );
        assert!(Transport::find(&with(20, 0x20)).is_none(), "more fragments");
        assert!(Transport::find(&with(21, 1)).is_none(), "a later fragment");
        assert!(Transport::find(&with(23, 1)).is_none(), "another protocol");
        for len in 0..whole.len() {
            assert!(Transport::find(&whole[..len]).is_none(), "cut at {len}");
        }
    }
}
