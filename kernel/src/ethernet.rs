//! The two kinds of Ethernet frames that matter while a stack gets its address.

use core::net::Ipv4Addr;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const BROADCAST: [u8; 6] = [0xff; 6];
const PROTOCOL_TCP: u8 = 6;
const TCP_SYN: u8 = 1 << 1;
const TCP_ACK: u8 = 1 << 4;

const ETHERNET_LEN: usize = 14;
const ARP_LEN: usize = 28;

/// Whether a frame is the first of a TCP connection over IPv4: a SYN without ACK (RFC 9293, 3.5).
pub(crate) fn opens_connection(frame: &[u8]) -> bool {
    let Some((ethernet, ip)) = frame.split_at_checked(ETHERNET_LEN) else {
        return false;
    };
    if ethernet[12..] != ETHERTYPE_IPV4 || ip.len() < 20 || ip[9] != PROTOCOL_TCP {
        return false;
    }
    let header_len = usize::from(ip[0] & 0xf) * 4;
    let flags = ip.get(header_len + 13);
    flags.is_some_and(|flags| flags & (TCP_SYN | TCP_ACK) == TCP_SYN)
}

/// An ARP announcement: a request for one's own address, which tells everybody who has it
/// (RFC 826; RFC 5227, 2.3).
pub(crate) fn announcement(mac: [u8; 6], address: Ipv4Addr) -> [u8; ETHERNET_LEN + ARP_LEN] {
    let ip = address.octets();
    let mut frame = [0; ETHERNET_LEN + ARP_LEN];
    let mut rest = &mut frame[..];
    let fields: [&[u8]; 8] = [
        &BROADCAST,
        &mac,
        &ETHERTYPE_ARP,
        // Ethernet and IPv4, addresses of 6 and 4 bytes, a request.
        &[0, 1, 0x08, 0x00, 6, 4, 0, 1],
        &mac,
        &ip,
        // The target's hardware address is not known, and not asked for.
        &[0; 6],
        &ip,
    ];
    for field in fields {
        let (place, behind) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = behind;
    }
    frame
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
        frame.extend([0; 13]);
        frame.push(flags);
        frame.extend([0; 6]);
        frame
    }

    #[test]
    fn a_syn_opens_a_connection() {
        assert!(opens_connection(&tcp(TCP_SYN, 0)));
        assert!(opens_connection(&tcp(TCP_SYN, 8)), "behind IP options too");
    }

    #[test]
    fn answers_and_data_open_nothing() {
        for flags in [TCP_SYN | TCP_ACK, TCP_ACK, 0] {
            assert!(!opens_connection(&tcp(flags, 0)));
        }
        let mut udp = tcp(TCP_SYN, 0);
        udp[ETHERNET_LEN + 9] = 17;
        assert!(!opens_connection(&udp));
    }

    #[test]
    fn a_frame_that_ends_early_opens_nothing() {
        let whole = tcp(TCP_SYN, 4);
        for len in 0..ETHERNET_LEN + 20 + 4 + 14 {
            assert!(!opens_connection(&whole[..len]), "{len} bytes");
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
}
