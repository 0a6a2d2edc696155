//! The feature bits of a virtio device (VIRTIO 1.2, section 6) and their names.
//!
//! Only the 64 bits that a vDPA device can offer today; the specification reserves more.

use alloc::borrow::Cow;
use alloc::format;
use core::fmt;
use core::ops::BitOr;

use virtio::FeatureBits;
use virtq::RingFeatures;

/// A set of feature bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u64);

impl Features {
    /// No feature.
    pub const EMPTY: Self = Self(0);

    /// The features whose bits are set.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit per feature.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether every feature of `other` is in this set.
    #[must_use]
    pub fn contains(self, other: impl Into<Self>) -> bool {
        let other = other.into();
        self.0 & other.0 == other.0
    }

    /// The features in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The features in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The features of this set that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The specification's names of the features, as a device of this type uses the bits,
    /// lowest bit first; a bit without a name is `bit_N`.
    pub fn names(self, device_type: u32) -> impl Iterator<Item = Cow<'static, str>> {
        (0..u64::BITS)
            .filter(move |bit| self.0 & (1 << bit) != 0)
            .map(move |bit| bit_name(device_type, bit))
    }
}

/// The name of one bit. Bits 0 to 23 and from 50 on belong to the device type.
fn bit_name(device_type: u32, bit: u32) -> Cow<'static, str> {
    let name = match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Net) => find::<virtio::net::F>(bit),
        Ok(virtio::Id::Block) => find::<virtio::blk::F>(bit),
        _ => find::<virtio::F>(bit),
    };
    name.map_or_else(|| Cow::Owned(format!("bit_{bit}")), Cow::Borrowed)
}

fn find<F: FeatureBits>(bit: u32) -> Option<&'static str> {
    F::FLAGS
        .iter()
        .find(|flag| flag.value().bits().to_ne() == 1 << bit)
        .map(|flag| flag.name())
}

/// The low 64 bits of the specification's 128.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no device can offer the upper half yet"
)]
fn low_bits(bits: u128) -> Features {
    Features(bits as u64)
}

impl From<virtio::F> for Features {
    fn from(features: virtio::F) -> Self {
        low_bits(features.bits().to_ne())
    }
}

impl From<virtio::net::F> for Features {
    fn from(features: virtio::net::F) -> Self {
        low_bits(features.bits().to_ne())
    }
}

impl From<virtio::blk::F> for Features {
    fn from(features: virtio::blk::F) -> Self {
        low_bits(features.bits().to_ne())
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

/// What of the negotiated features changes the ring.
#[must_use]
pub fn ring_features(features: Features) -> RingFeatures {
    RingFeatures {
        packed: features.contains(virtio::F::RING_PACKED),
        event_idx: features.contains(virtio::F::EVENT_IDX),
        indirect: features.contains(virtio::F::INDIRECT_DESC),
        in_order: features.contains(virtio::F::IN_ORDER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn names(features: Features, device_type: u32) -> Vec<String> {
        features.names(device_type).map(Cow::into_owned).collect()
    }

    #[test]
    fn a_bit_is_named_as_its_device_type_uses_it() {
        let bit_5 = Features::from_bits(1 << 5);
        assert_eq!(names(bit_5, 1), ["MAC"]);
        assert_eq!(names(bit_5, 2), ["RO"]);
        assert_eq!(names(bit_5, 3), ["bit_5"]);
    }

    #[test]
    fn transport_features_have_the_same_name_for_every_type() {
        let features = Features::from(virtio::F::VERSION_1 | virtio::F::EVENT_IDX);
        for device_type in [1, 2, 4, 1000] {
            assert_eq!(names(features, device_type), ["EVENT_IDX", "VERSION_1"]);
        }
    }

    #[test]
    fn bits_above_64_are_dropped() {
        assert_eq!(Features::from(virtio::net::F::RSS_CONTEXT), Features::EMPTY);
    }
}
