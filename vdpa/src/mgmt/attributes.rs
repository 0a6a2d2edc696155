//! What a user can say about a device before it is made.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use bitflags::bitflags;

use crate::Features;

/// The wishes of a user; what is `None` is left to the management device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The features that the device may offer, and no others.
    pub device_features: Option<Features>,
    /// The address of a network device.
    pub mac: Option<MacAddress>,
    /// The largest packet of a network device, in bytes.
    pub mtu: Option<u16>,
    /// How many pairs of queues a network device has.
    pub max_queue_pairs: Option<u16>,
    /// The size of a block device, in sectors of 512 bytes.
    pub capacity: Option<u64>,
    /// The block size of a block device, in bytes.
    pub block_size: Option<u32>,
    /// How many queues a block device has.
    pub queues: Option<u16>,
    /// The name of the network device at the other end of the cable.
    pub peer: Option<String>,
}

bitflags! {
    /// Which attributes are present, or can be dealt with. The bits are numbered as the netlink
    /// attributes of Linux are (`include/uapi/linux/vdpa.h`), except the last, which Linux has not.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AttributeSet: u64 {
        /// [`Attributes::mac`].
        const MAC = 1 << 10;
        /// [`Attributes::max_queue_pairs`].
        const MAX_VQP = 1 << 12;
        /// [`Attributes::mtu`].
        const MTU = 1 << 13;
        /// [`Attributes::device_features`].
        const DEVICE_FEATURES = 1 << 20;
        /// [`Attributes::capacity`].
        const CAPACITY = 1 << 21;
        /// [`Attributes::block_size`].
        const BLOCK_SIZE = 1 << 23;
        /// [`Attributes::queues`].
        const NUM_QUEUES = 1 << 25;
        /// [`Attributes::peer`].
        const PEER = 1 << 63;
    }
}

impl AttributeSet {
    /// The attributes that only a network device has.
    pub const NET: Self = Self::MAC
        .union(Self::MAX_VQP)
        .union(Self::MTU)
        .union(Self::PEER);
    /// The attributes that only a block device has.
    pub const BLK: Self = Self::CAPACITY
        .union(Self::BLOCK_SIZE)
        .union(Self::NUM_QUEUES);
}

impl Attributes {
    /// Which of them the user has given.
    #[must_use]
    pub fn present(&self) -> AttributeSet {
        [
            (
                self.device_features.is_some(),
                AttributeSet::DEVICE_FEATURES,
            ),
            (self.mac.is_some(), AttributeSet::MAC),
            (self.mtu.is_some(), AttributeSet::MTU),
            (self.max_queue_pairs.is_some(), AttributeSet::MAX_VQP),
            (self.capacity.is_some(), AttributeSet::CAPACITY),
            (self.block_size.is_some(), AttributeSet::BLOCK_SIZE),
            (self.queues.is_some(), AttributeSet::NUM_QUEUES),
            (self.peer.is_some(), AttributeSet::PEER),
        ]
        .into_iter()
        .filter_map(|(given, attribute)| given.then_some(attribute))
        .collect()
    }
}

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

    #[test]
    fn what_is_present_is_told_by_its_bit() {
        assert_eq!(Attributes::default().present(), AttributeSet::empty());
        let attributes = Attributes {
            mtu: Some(1500),
            device_features: Some(Features::EMPTY),
            ..Attributes::default()
        };
        assert_eq!(
            attributes.present(),
            AttributeSet::MTU | AttributeSet::DEVICE_FEATURES
        );
    }
}
