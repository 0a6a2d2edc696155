//! What a user can say about a device before it is made.

use alloc::string::String;

use bitflags::bitflags;
use vdpa::{Features, MacAddress};

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

#[cfg(test)]
mod tests {
    use super::*;

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
