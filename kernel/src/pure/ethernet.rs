//! The Ethernet frames that matter below the stack: where connections begin, who has which address,
//! and answers of DHCP servers for a host without one.

use core::net::Ipv4Addr;
use core::ops::Range;

use vdpa::checksum::Sum;

use crate::pure::dhcp;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const BROADCAST: [u8; 6] = [0xff; 6];
const PROTOCOL_TCP: u8 = 6;
const TCP_SYN: u8 = 1 << 1;
const TCP_ACK: u8 = 1 << 4;

const ETHERNET_LEN: usize = 14;
const ETHERTYPE: Range<usize> = 12..ETHERNET_LEN;
/// Where the packet starts.
const IP: usize = ETHERNET_LEN;
const ARP_LEN: usize = 28;

/// What is looked at below the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notable {
    /// The first segment of a TCP connection to this port: a SYN without ACK (RFC 9293, 3.5).
    Syn(u16),
    /// An ARP packet.
    Arp,
    /// A message of neighbor discovery (RFC 4861), to be answered by the stack or not.
    Neighbor { for_stack: bool },
}

/// Whether a frame is one of IPv6.
#[inline]
pub(crate) fn is_ipv6(frame: &[u8]) -> bool {
    frame.get(ETHERTYPE) == Some(&ETHERTYPE_IPV6)
}

/// What there is to be looked at in a frame. Established connections are passed with a few
/// comparisons.
#[inline]
pub(crate) fn notable(frame: &[u8]) -> Option<Notable> {
    match frame.get(ETHERTYPE)? {
        [0x08, 0x00] if *frame.get(IP + 9)? == PROTOCOL_TCP => {
            let tcp = IP + usize::from(frame[IP] & 0xf) * 4;
            syn(frame, tcp)
        }
        [0x08, 0x06] => Some(Notable::Arp),
        [0x86, 0xdd] => notable_ipv6(frame),
        _ => None,
    }
}

/// The same in IPv6. The stack reads one header before that of the protocol, that of options for
/// each hop.
fn notable_ipv6(frame: &[u8]) -> Option<Notable> {
    const HOP_BY_HOP: u8 = 0;
    const ICMPV6: u8 = 58;
    let mut at = IP + 40;
    let mut protocol = *frame.get(IP + 6)?;
    if protocol == HOP_BY_HOP {
        protocol = *frame.get(at)?;
        at += (usize::from(*frame.get(at + 1)?) + 1) * 8;
    }
    match protocol {
        PROTOCOL_TCP => syn(frame, at),
        // Solicitations and advertisements of routers, of neighbors, and redirects.
        ICMPV6 => match *frame.get(at)? {
            kind @ 133..=137 => Some(Notable::Neighbor {
                for_stack: matches!(kind, 135 | 136),
            }),
            _ => None,
        },
        _ => None,
    }
}

#[inline]
fn syn(frame: &[u8], tcp: usize) -> Option<Notable> {
    let flags = frame.get(tcp + 13)?;
    if flags & (TCP_SYN | TCP_ACK) != TCP_SYN {
        return None;
    }
    let port = u16::from_be_bytes([frame[tcp + 2], frame[tcp + 3]]);
    Some(Notable::Syn(port))
}

/// Makes an answer for a DHCP client a broadcast. Servers may send it to the address that they
/// offer (RFC 2131, 4.1), but a stack without an address takes nothing else. Whether it is such an
/// answer.
pub(crate) fn broadcast_dhcp_answer(frame: &mut [u8]) -> bool {
    const PROTOCOL_UDP: u8 = 17;
    let Some((ethernet, ip)) = frame.split_at_mut_checked(IP) else {
        return false;
    };
    if ethernet[ETHERTYPE] != ETHERTYPE_IPV4 || ip.len() < 28 || ip[9] != PROTOCOL_UDP {
        return false;
    }
    let header_len = usize::from(ip[0] & 0xf) * 4;
    let Some((header, udp)) = ip.split_at_mut_checked(header_len) else {
        return false;
    };
    if header_len < 20 || udp.len() < 8 || udp[2..4] != dhcp::CLIENT_PORT.to_be_bytes() {
        return false;
    }
    header[16..20].fill(0xff);
    header[10..12].fill(0);
    let sum = !Sum::default().add_bytes(header).fold();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    // None: it covers the address (RFC 768).
    udp[6..8].fill(0);
    true
}

/// A host as ARP names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArpHost {
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
    /// Its IPv4 address.
    pub(crate) ip: Ipv4Addr,
}

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArpOperation {
    /// It asks.
    Request = 1,
    /// It answers.
    Reply = 2,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) operation: ArpOperation,
    pub(crate) sender: ArpHost,
    pub(crate) target: ArpHost,
}

/// Ethernet and IPv4, addresses of 6 and 4 bytes.
const ARP_TYPES: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// Where an ARP frame says the addresses of its sender and of its target.
const ARP_SENDER: Range<usize> = IP + 14..IP + 18;
const ARP_TARGET: Range<usize> = IP + 24..IP + 28;

impl Arp {
    /// The packet in a frame.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(IP..)?.first_chunk::<ARP_LEN>()?;
        if frame[ETHERTYPE] != ETHERTYPE_ARP || packet[..6] != ARP_TYPES {
            return None;
        }
        let operation = match packet[6..8] {
            [0, 1] => ArpOperation::Request,
            [0, 2] => ArpOperation::Reply,
            _ => return None,
        };
        let host = |at: usize| {
            let bytes: [u8; 10] = core::array::from_fn(|index| packet[at + index]);
            let [a, b, c, d, e, f, ip @ ..] = bytes;
            ArpHost {
                mac: [a, b, c, d, e, f],
                ip: ip.into(),
            }
        };
        Some(Self {
            operation,
            sender: host(8),
            target: host(18),
        })
    }

    /// A frame with it for `destination`.
    pub(crate) fn frame(&self, destination: [u8; 6]) -> [u8; ETHERNET_LEN + ARP_LEN] {
        let mut frame = [0; ETHERNET_LEN + ARP_LEN];
        let mut rest = &mut frame[..];
        let fields: [&[u8]; 9] = [
            &destination,
            &self.sender.mac,
            &ETHERTYPE_ARP,
            &ARP_TYPES,
            &[0, self.operation as u8],
            &self.sender.mac,
            &self.sender.ip.octets(),
            &self.target.mac,
            &self.target.ip.octets(),
        ];
        for field in fields {
            let (place, behind) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = behind;
        }
        frame
    }
}

/// Exchanges the address `from` for `to` where an ARP frame names its sender or its target.
pub(crate) fn exchange_in_arp(frame: &mut [u8], from: Ipv4Addr, to: Ipv4Addr) {
    if frame.len() < IP + ARP_LEN || frame[ETHERTYPE] != ETHERTYPE_ARP {
        return;
    }
    for place in [ARP_SENDER, ARP_TARGET] {
        let place = &mut frame[place];
        if *place == from.octets() {
            place.copy_from_slice(&to.octets());
        }
    }
}

/// An ARP announcement: a request for one's own address, which tells the link who has it, and a
/// host that has it, too answers (RFC 5227, 2.3).
pub(crate) fn announcement(mac: [u8; 6], ip: Ipv4Addr) -> [u8; ETHERNET_LEN + ARP_LEN] {
    // The target's hardware address is not known, and not asked for.
    let (sender, target) = (ArpHost { mac, ip }, ArpHost { mac: [0; 6], ip });
    let operation = ArpOperation::Request;
    let arp = Arp {
        operation,
        sender,
        target,
    };
    arp.frame(BROADCAST)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn tcp(flags: u8, options_len: usize) -> Vec<u8> {
        let mut frame = Vec::from([0; 12]);
        frame.extend(ETHERTYPE_IPV4);
        let words = u8::try_from(5 + options_len / 4).unwrap();
        frame.extend([0x40 | words, 0, 0, 40, 0, 0, 0, 0, 64, PROTOCOL_TCP, 0, 0]);
        frame.extend([10, 0, 2, 2, 10, 0, 2, 15]);
        frame.extend(core::iter::repeat_n(1, options_len));
        frame.extend([0, 9, 0, 80]);
        frame.extend([0; 9]);
        frame.push(flags);
        frame.extend([0; 6]);
        frame
    }

    #[test]
    fn a_syn_opens_a_connection() {
        let syn = Some(Notable::Syn(80));
        assert_eq!(notable(&tcp(TCP_SYN, 0)), syn);
        assert_eq!(notable(&tcp(TCP_SYN, 8)), syn, "behind IP options too");
    }

    fn ipv6(protocol: u8, options: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::from([0; 12]);
        frame.extend(ETHERTYPE_IPV6);
        let first = if options { 0 } else { protocol };
        frame.extend([0x60, 0, 0, 0, 0, 0, first, 64]);
        frame.extend([0; 32]);
        if options {
            frame.extend([protocol, 1]);
            frame.extend([0; 14]);
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_syn_over_ipv6_is_one_behind_options_too() {
        let segment = &tcp(TCP_SYN, 0)[IP + 20..];
        for options in [false, true] {
            let frame = ipv6(PROTOCOL_TCP, options, segment);
            assert!(is_ipv6(&frame));
            assert_eq!(notable(&frame), Some(Notable::Syn(80)));
            for length in 0..frame.len() - 6 {
                assert_eq!(notable(&frame[..length]), None, "{length} bytes");
            }
        }
        assert!(!is_ipv6(&tcp(TCP_SYN, 0)));
    }

    #[test]
    fn neighbors_are_noted_and_the_stack_gets_what_it_answers() {
        for (kind, for_stack) in [
            (133, false),
            (134, false),
            (135, true),
            (136, true),
            (137, false),
        ] {
            let noted = notable(&ipv6(58, false, &[kind]));
            assert_eq!(noted, Some(Notable::Neighbor { for_stack }), "{kind}");
        }
        assert_eq!(notable(&ipv6(58, false, &[128])), None, "an echo request");
    }

    #[test]
    fn answers_and_data_open_nothing() {
        for flags in [TCP_SYN | TCP_ACK, TCP_ACK, 0] {
            assert_eq!(notable(&tcp(flags, 0)), None);
        }
        let mut udp = tcp(TCP_SYN, 0);
        udp[ETHERNET_LEN + 9] = 17;
        assert_eq!(notable(&udp), None);
    }

    #[test]
    fn a_frame_that_ends_early_opens_nothing() {
        let whole = tcp(TCP_SYN, 4);
        for len in 0..ETHERNET_LEN + 20 + 4 + 14 {
            assert_eq!(notable(&whole[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn an_announcement_asks_everybody_for_the_own_address() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let frame = announcement(mac, Ipv4Addr::new(10, 0, 2, 15));
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, 0, 1, 8, 0,
            6, 4, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2,
            15,
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn an_answer_for_a_client_becomes_a_broadcast() {
        let mut frame = Vec::from([2; 12]);
        frame.extend(ETHERTYPE_IPV4);
        frame.extend([0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0xaa, 0xaa]);
        frame.extend([10, 0, 2, 2, 10, 0, 2, 15]);
        frame.extend([0, 67, 0, 68, 0, 10, 0xbb, 0xbb, 1, 2]);
        let before = frame.clone();
        assert!(broadcast_dhcp_answer(&mut frame));
        assert_eq!(frame[IP + 16..IP + 20], [255; 4]);
        let header = Sum::default().add_bytes(&frame[IP..IP + 20]);
        assert_eq!(header.fold(), 0xffff, "of the header");
        assert_eq!(frame[IP + 26..], [0, 0, 1, 2], "no checksum of UDP");

        let mut other = before.clone();
        other[IP + 23] = 69;
        for len in 0..before.len() {
            let mut short = before[..len].to_vec();
            let is_answer = broadcast_dhcp_answer(&mut short);
            assert_eq!(is_answer, len >= IP + 28, "{len} bytes");
            if len < IP + 28 {
                assert_eq!(short, before[..len], "{len} bytes");
            }
        }
        let untouched = other.clone();
        assert!(!broadcast_dhcp_answer(&mut other));
        assert_eq!(other, untouched, "for another port");
    }

    #[test]
    fn an_arp_packet_is_what_was_put_into_it() {
        let host = |last| ArpHost {
            mac: [2, 0, 0, 0, 0, last],
            ip: Ipv4Addr::new(10, 0, 0, last),
        };
        let arp = Arp {
            operation: ArpOperation::Reply,
            sender: host(1),
            target: host(2),
        };
        let mut frame = arp.frame([9; 6]);
        assert_eq!(frame[..6], [9; 6]);
        assert_eq!(Arp::read(&frame), Some(arp));
        assert_eq!(notable(&frame), Some(Notable::Arp));
        for len in 0..frame.len() {
            assert_eq!(Arp::read(&frame[..len]), None, "{len} bytes");
        }
        exchange_in_arp(&mut frame, host(1).ip, Ipv4Addr::new(192, 0, 2, 1));
        let read = Arp::read(&frame).unwrap();
        assert_eq!(read.sender.ip, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!((read.target, read.sender.mac), (host(2), host(1).mac));
    }
}
