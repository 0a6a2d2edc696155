//! The messages: ICMPv6 in IPv6 in an Ethernet frame (RFC 4861, 4; RFC 8106, 5.1).

use alloc::vec::Vec;
use core::net::Ipv6Addr;

const ETHERNET_LEN: usize = 14;
const HEADER_LEN: usize = 40;
const ICMPV6: u8 = 58;
/// What no router has passed on has it still (RFC 4861, 3.1).
const HOP_LIMIT: u8 = 255;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const RECURSIVE_DNS_SERVERS: u8 = 25;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A message that a host looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// What a router says of its link.
    Router(RouterAdvertisement<'a>),
    /// Who looks for `target`; without a source, whether it is free.
    Solicitation { source: Ipv6Addr, target: Ipv6Addr },
    /// A host has `target`.
    Advertisement { target: Ipv6Addr },
}

/// The contents of a router advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouterAdvertisement<'a> {
    pub(super) router: Ipv6Addr,
    /// For how many seconds it is a default router.
    pub(super) lifetime: u16,
    /// From -1 to 1 (RFC 4191, 2.1).
    pub(super) preference: i8,
    options: &'a [u8],
}

/// What is in an option that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouterOption<'a> {
    Prefix(PrefixInformation),
    NameServers {
        lifetime: u32,
        servers: &'a [[u8; 16]],
    },
}

/// A prefix of the link (RFC 4861, 4.6.2). Lifetimes are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefixInformation {
    pub(super) prefix: Ipv6Addr,
    pub(super) length: u8,
    pub(super) on_link: bool,
    pub(super) autonomous: bool,
    pub(super) valid: u32,
    pub(super) preferred: u32,
}

/// The message in a frame, if it is one and whole (RFC 4861, 6.1.2, 7.1.1 and 7.1.2).
pub(super) fn read(frame: &[u8]) -> Option<Message<'_>> {
    let packet = frame.get(ETHERNET_LEN..)?;
    let (header, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
    if header[0] >> 4 != 6 || header[6] != ICMPV6 || header[7] != HOP_LIMIT {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = rest.get(..length)?;
    let (source, destination) = (address(&header[8..])?, address(&header[24..])?);
    if checksum(source, destination, message) != 0 || *message.get(1)? != 0 {
        return None;
    }
    match message[0] {
        ROUTER_ADVERTISEMENT if source.is_unicast_link_local() => {
            let (fields, options) = message.split_first_chunk::<16>()?;
            let preference = match fields[5] >> 3 & 3 {
                1 => 1,
                3 => -1,
                _ => 0,
            };
            are_whole(options).then_some(Message::Router(RouterAdvertisement {
                router: source,
                lifetime: u16::from_be_bytes([fields[6], fields[7]]),
                preference,
                options,
            }))
        }
        kind @ (NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT) => {
            let (fields, options) = message.split_first_chunk::<24>()?;
            let target = address(&fields[8..])?;
            if target.is_multicast() || !are_whole(options) {
                return None;
            }
            Some(if kind == NEIGHBOR_SOLICITATION {
                Message::Solicitation { source, target }
            } else {
                Message::Advertisement { target }
            })
        }
        _ => None,
    }
}

impl<'a> RouterAdvertisement<'a> {
    /// The options that matter, in order.
    pub(super) fn options(&self) -> impl Iterator<Item = RouterOption<'a>> {
        split(self.options).filter_map(|option| match option? {
            [PREFIX_INFORMATION, _, rest @ ..] if rest.len() == 30 => {
                Some(RouterOption::Prefix(PrefixInformation {
                    prefix: address(&rest[14..])?,
                    length: rest[0],
                    on_link: rest[1] & 0x80 != 0,
                    autonomous: rest[1] & 0x40 != 0,
                    valid: number(&rest[2..])?,
                    preferred: number(&rest[6..])?,
                }))
            }
            [RECURSIVE_DNS_SERVERS, _, rest @ ..] => Some(RouterOption::NameServers {
                lifetime: number(rest.get(2..)?)?,
                servers: rest.get(6..)?.as_chunks().0,
            }),
            _ => None,
        })
    }
}

/// Whether options fill their place.
fn are_whole(options: &[u8]) -> bool {
    split(options).all(|option| option.is_some())
}

/// The options, each with its type and length; `None` in place of one that is cut, which ends them.
fn split(options: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = options;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // In units of 8 bytes, its type and itself included.
        let length = rest.get(1).map_or(0, |units| usize::from(*units) * 8);
        match rest.split_at_checked(length) {
            Some((option, behind)) if length != 0 => {
                rest = behind;
                Some(Some(option))
            }
            _ => {
                rest = &[];
                Some(None)
            }
        }
    })
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    bytes.first_chunk::<16>().map(|bytes| (*bytes).into())
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// Asks the routers what there is. A host without an address has no source.
pub(super) fn router_solicitation(mac: [u8; 6], source: Ipv6Addr) -> Vec<u8> {
    let mut message = Vec::from([ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    if !source.is_unspecified() {
        add_link_layer_address(&mut message, SOURCE_LINK_LAYER_ADDRESS, mac);
    }
    frame(mac, source, ALL_ROUTERS, message)
}

/// Asks whether somebody has `target`, which then is not taken (RFC 4862, 5.4.2).
pub(super) fn probe(mac: [u8; 6], target: Ipv6Addr) -> Vec<u8> {
    let mut message = Vec::from([NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(target.octets());
    // The solicited-node address (RFC 4291, 2.7.1).
    let group = 0xff02 << 112 | 0x1_ff00_0000 | target.to_bits() & 0xff_ffff;
    frame(mac, Ipv6Addr::UNSPECIFIED, group.into(), message)
}

/// Tells everybody who has `target` (RFC 4861, 7.2.4: the answer to a host without an address).
pub(super) fn advertisement(mac: [u8; 6], target: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 1 << 5;
    let mut message = Vec::from([NEIGHBOR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0]);
    message.extend(target.octets());
    add_link_layer_address(&mut message, TARGET_LINK_LAYER_ADDRESS, mac);
    frame(mac, target, ALL_NODES, message)
}

fn add_link_layer_address(message: &mut Vec<u8>, kind: u8, mac: [u8; 6]) {
    message.extend([kind, 1]);
    message.extend(mac);
}

/// A frame for a multicast address (RFC 2464, 7).
pub(super) fn frame(mac: [u8; 6], source: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::with_capacity(ETHERNET_LEN + HEADER_LEN + message.len());
    frame.extend([0x33, 0x33]);
    frame.extend(&to.octets()[12..]);
    frame.extend(mac);
    // A message is shorter than 256 bytes.
    frame.extend([
        0x86,
        0xdd,
        0x60,
        0,
        0,
        0,
        0,
        message.len() as u8,
        ICMPV6,
        HOP_LIMIT,
    ]);
    frame.extend(source.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

/// The checksum with the pseudo-header (RFC 8200, 8.1): 0 if the one in the message is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let addresses = source.segments().into_iter().chain(destination.segments());
    let mut sum: u32 = addresses.map(u32::from).sum();
    sum += message.len() as u32 + u32::from(ICMPV6);
    for word in message.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn advertised(options: &[u8]) -> Vec<u8> {
        let fields = [134, 0, 0, 0, 64, 0x18, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        frame(MAC, ROUTER, ALL_NODES, [&fields, options].concat())
    }

    #[test]
    fn a_router_is_understood() {
        let mut options = Vec::from([1, 1, 2, 0, 0, 0, 0, 1, 5, 1, 0, 0, 0, 0, 0, 1]);
        options.extend([3, 4, 64, 0xc0, 0, 0, 1, 0, 0, 0, 0, 9, 0, 0, 0, 0]);
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
        options.extend(prefix.octets());
        options.extend([25, 3, 0, 0, 0, 0, 0, 60]);
        options.extend(ROUTER.octets());
        let frame = advertised(&options);
        let Some(Message::Router(read)) = read(&frame) else {
            panic!("{:?}", read(&frame));
        };
        assert_eq!(
            (read.router, read.lifetime, read.preference),
            (ROUTER, 0x708, -1)
        );
        let expected = [
            RouterOption::Prefix(PrefixInformation {
                prefix,
                length: 64,
                on_link: true,
                autonomous: true,
                valid: 256,
                preferred: 9,
            }),
            RouterOption::NameServers {
                lifetime: 60,
                servers: &[ROUTER.octets()],
            },
        ];
        assert!(read.options().eq(expected));
    }

    #[test]
    fn a_message_that_is_not_whole_or_from_elsewhere_is_none() {
        let options = [1, 1, 2, 0, 0, 0, 0, 1];
        let whole = advertised(&options);
        assert!(read(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length} bytes");
        }
        for place in ETHERNET_LEN..whole.len() {
            // The traffic class and the flow label are anybody's.
            if (ETHERNET_LEN + 1..ETHERNET_LEN + 4).contains(&place) {
                continue;
            }
            let mut other = whole.clone();
            other[place] ^= 0x10;
            assert_eq!(read(&other), None, "byte {place} is another one");
        }
        for options in [
            &[1, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 2, 0, 0, 0, 0, 0, 0],
            &[1],
        ] {
            assert_eq!(read(&advertised(options)), None, "{options:?}");
        }
        let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let fields = Vec::from([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&frame(MAC, global, ALL_NODES, fields)), None);
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let target = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
        let frame = probe(MAC, target);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let source = Ipv6Addr::UNSPECIFIED;
        assert_eq!(read(&frame), Some(Message::Solicitation { source, target }));
        let frame = advertisement(MAC, target);
        assert_eq!(read(&frame), Some(Message::Advertisement { target }));
        for (source, length) in [(source, 62), (target, 70)] {
            let frame = router_solicitation(MAC, source);
            assert_eq!(frame.len(), length);
            assert_eq!(checksum(source, ALL_ROUTERS, &frame[54..]), 0);
        }
    }
}
