//! Ethernet addresses.

use core::fmt;
use core::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

/// The text is no Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is six bytes in hexadecimal, such as 52:54:00:12:34:56")]
pub struct BadMacAddress;

impl MacAddress {
    /// Whether a device can have the address: it names one station.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = BadMacAddress;

    fn from_str(text: &str) -> Result<Self, BadMacAddress> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(BadMacAddress)?;
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !digits || part.len() > 2 {
                return Err(BadMacAddress);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadMacAddress)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(BadMacAddress),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let text = "52:54:00:12:34:56";
        let mac: MacAddress = text.parse().unwrap();
        assert_eq!(mac, MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(mac.to_string(), text);
    }

    #[test]
    fn groups_and_nobody_are_no_interface() {
        assert!(!MacAddress([0xff; 6]).is_unicast());
        assert!(!MacAddress([0x01, 0, 0x5e, 0, 0, 1]).is_unicast());
        assert!(!MacAddress([0; 6]).is_unicast());
        assert!(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]).is_unicast());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:",
            "52:54:00:12:34:xx",
            "52:54:00:12:34:+5",
            "152:54:00:12:34:56",
            "525400123456",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(BadMacAddress), "{text:?}");
        }
    }
}
