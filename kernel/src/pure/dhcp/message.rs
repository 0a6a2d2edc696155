//! The messages on the wire (RFC 2131, 2; options in RFC 2132, long ones in RFC 3396).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// The port that servers listen on.
pub(crate) const SERVER_PORT: u16 = 67;
/// The port that clients listen on.
pub(crate) const CLIENT_PORT: u16 = 68;

/// The fixed part, the magic cookie included.
const FIXED_LEN: usize = 240;
/// What relays and servers from before DHCP expect at least (RFC 1542, 2.1).
const SHORTEST: usize = 300;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAC_LEN: u8 = 6;
const BROADCAST_FLAG: u16 = 1 << 15;
/// The longest message that is taken, an IP packet in an Ethernet frame.
const LONGEST: u16 = 1500;

pub(super) mod option {
    pub(crate) const PAD: u8 = 0;
    pub(crate) const MASK: u8 = 1;
    pub(crate) const ROUTERS: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const REQUESTED: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const PARAMETERS: u8 = 55;
    pub(crate) const LONGEST: u8 = 57;
    pub(crate) const RENEWAL: u8 = 58;
    pub(crate) const REBINDING: u8 = 59;
    pub(crate) const CLIENT: u8 = 61;
    pub(crate) const ROUTES: u8 = 121;
    pub(crate) const END: u8 = 255;
}

/// What a message is for (RFC 2132, 9.6).
pub(super) mod kind {
    pub(crate) const DISCOVER: u8 = 1;
    pub(crate) const OFFER: u8 = 2;
    pub(crate) const REQUEST: u8 = 3;
    pub(crate) const DECLINE: u8 = 4;
    pub(crate) const ACK: u8 = 5;
    pub(crate) const NAK: u8 = 6;
}

/// What a server sent. All of it is a stranger's word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    bytes: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The reply in `bytes`, if it is one, and for the client with this hardware address and
    /// transaction.
    pub(super) fn new(bytes: &'a [u8], mac: [u8; 6], transaction: u32) -> Option<Self> {
        let fixed = bytes.first_chunk::<FIXED_LEN>()?;
        let fits = fixed[0] == REPLY
            && fixed[4..8] == transaction.to_be_bytes()
            && fixed[28..34] == mac
            && fixed[236..] == COOKIE;
        fits.then_some(Self { bytes })
    }

    /// The address for the client.
    pub(super) fn address(&self) -> Ipv4Addr {
        address(&self.bytes[16..])
    }

    /// What an option says. One that is there several times is one whose parts are put together.
    pub(super) fn option(&self, code: u8) -> Option<Vec<u8>> {
        let (fixed, options) = self.bytes.split_at(FIXED_LEN);
        // Options may go on in the fields for the name of a file (1), of the server (2), or both.
        let overload = find(options, option::OVERLOAD, None).and_then(|it| it.first().copied());
        let overload = overload.unwrap_or(0);
        let mut value = find(options, code, None);
        if overload & 1 != 0 {
            value = find(&fixed[108..236], code, value);
        }
        if overload & 2 != 0 {
            value = find(&fixed[44..108], code, value);
        }
        value
    }

    /// The address that an option starts with.
    pub(super) fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        let value = self.option(code)?;
        (value.len() >= 4).then(|| address(&value))
    }

    /// The seconds that an option says.
    pub(super) fn seconds_option(&self, code: u8) -> Option<u32> {
        let value = self.option(code)?;
        value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn kind(&self) -> Option<u8> {
        self.option(option::KIND)?.first().copied()
    }
}

/// Puts what `options` have under `code` behind `before`. What follows an option that does not fit
/// into the field is no option.
fn find(mut options: &[u8], code: u8, before: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut found = before;
    while let [this, rest @ ..] = options {
        if *this == option::PAD {
            options = rest;
            continue;
        }
        let [length, rest @ ..] = rest else { break };
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *this == option::END {
            break;
        }
        if *this == code {
            found.get_or_insert_default().extend_from_slice(value);
        }
        options = rest;
    }
    found
}

/// The address in the first four bytes, which are there.
pub(super) fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

/// What the client says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) kind: u8,
    pub(super) mac: [u8; 6],
    pub(super) transaction: u32,
    /// Seconds since the client began.
    pub(super) seconds: u16,
    /// The address that the client already uses, and can be reached at; without one the answer is
    /// to be a broadcast.
    pub(super) address: Option<Ipv4Addr>,
    /// The address it wants.
    pub(super) requested: Option<Ipv4Addr>,
    /// The server whose offer it takes.
    pub(super) server: Option<Ipv4Addr>,
}

impl Request {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SHORTEST);
        bytes.extend([REQUEST, ETHERNET, MAC_LEN, 0]);
        bytes.extend(self.transaction.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        let flags = if self.address.is_some() {
            0
        } else {
            BROADCAST_FLAG
        };
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(236, 0);
        bytes.extend(COOKIE);
        bytes.extend([option::KIND, 1, self.kind]);
        bytes.extend([option::CLIENT, MAC_LEN + 1, ETHERNET]);
        bytes.extend(self.mac);
        for (code, value) in [
            (option::REQUESTED, self.requested),
            (option::SERVER, self.server),
        ] {
            if let Some(value) = value {
                bytes.extend([code, 4]);
                bytes.extend(value.octets());
            }
        }
        if self.kind != kind::DECLINE {
            bytes.extend([option::LONGEST, 2]);
            bytes.extend(LONGEST.to_be_bytes());
            // Routes before routers (RFC 3442).
            let wanted = [option::MASK, option::ROUTES, option::ROUTERS, option::DNS];
            bytes.extend([option::PARAMETERS, 4]);
            bytes.extend(wanted);
        }
        bytes.push(option::END);
        bytes.resize(SHORTEST, option::PAD);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0; FIXED_LEN];
        bytes[0] = REPLY;
        bytes[4..8].copy_from_slice(&7u32.to_be_bytes());
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..240].copy_from_slice(&COOKIE);
        bytes.extend(options);
        bytes
    }

    fn option_of(bytes: &[u8], code: u8) -> Option<Vec<u8>> {
        Reply::new(bytes, MAC, 7).unwrap().option(code)
    }

    #[test]
    fn only_replies_for_the_client_are_taken() {
        let good = reply(&[]);
        assert!(Reply::new(&good, MAC, 7).is_some());
        assert!(Reply::new(&good, MAC, 8).is_none(), "another transaction");
        assert!(Reply::new(&good, [2; 6], 7).is_none(), "another client");
        assert!(Reply::new(&good[..239], MAC, 7).is_none(), "cut short");
        for place in [0, 236] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(Reply::new(&bad, MAC, 7).is_none(), "byte {place}");
        }
    }

    #[test]
    fn options_are_found_behind_padding_and_in_parts() {
        let bytes = reply(&[0, 0, 3, 2, 1, 2, 12, 0, 3, 2, 3, 4, 255, 6, 1, 9]);
        assert_eq!(option_of(&bytes, 3), Some(std::vec![1, 2, 3, 4]));
        assert_eq!(option_of(&bytes, 12), Some(std::vec![]));
        assert_eq!(option_of(&bytes, 6), None, "behind the end");
    }

    #[test]
    fn options_go_on_in_the_fields_that_are_given_up_for_them() {
        for (overload, expected) in [
            (0, std::vec![1]),
            (1, std::vec![1, 2]),
            (2, std::vec![1, 3]),
            (3, std::vec![1, 2, 3]),
        ] {
            let mut bytes = reply(&[52, 1, overload, 6, 1, 1, 255]);
            bytes[108..112].copy_from_slice(&[6, 1, 2, 255]);
            bytes[44..48].copy_from_slice(&[6, 1, 3, 255]);
            assert_eq!(option_of(&bytes, 6), Some(expected), "{overload}");
        }
    }

    #[test]
    fn an_option_that_does_not_fit_ends_the_list() {
        for options in [
            &[6][..],
            &[6, 1],
            &[6, 200, 1, 1],
            &[1, 1, 1, 6, 4, 1, 1, 1],
        ] {
            assert_eq!(option_of(&reply(options), 6), None, "{options:?}");
        }
    }
}
