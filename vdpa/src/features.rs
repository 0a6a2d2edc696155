//! The feature bits of a virtio device (VIRTIO 1.2, section 6) and their names.
//!
//! There are 128, as of VIRTIO 1.4; a device of an earlier version offers none above bit 63.

use alloc::borrow::Cow;
use alloc::format;
use core::fmt;
use core::ops::BitOr;

use virtio::FeatureBits;
use virtq::RingFeatures;

/// A set of feature bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u128);

impl Features {
    /// No feature.
    pub const EMPTY: Self = Self(0);

    /// The features whose bits are set.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// One bit per feature.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// What a device offers that shows these words when they are selected one by one.
    ///
    /// A device shows 0 for words that it does not know (VIRTIO 1.2, 4.1.4.3.1), but not every
    /// device decodes the whole selector: of QEMU's on virtio-mmio each word but the first is the
    /// second. Where the last word repeats the second, in which there is at least `VERSION_1`,
    /// there is no upper half.
    #[must_use]
    pub fn from_words(words: [u32; 4]) -> Self {
        let [low, high, third, last] = words.map(u128::from);
        let lower = low | high << 32;
        Self(match last == high {
            true => lower,
            false => lower | third << 64 | last << 96,
        })
    }

    /// The bits in words of 32, the lowest first.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each word is what is left of the bits"
    )]
    pub fn words(self) -> [u32; 4] {
        [0, 32, 64, 96].map(|shift| (self.0 >> shift) as u32)
    }

    /// The words that a driver writes, with their selectors, to accept these features of a device
    /// that offers `offered`: the lower two, and each other one in which the device offers
    /// something. A device of before VIRTIO 1.4 is told nothing that it does not know.
    pub fn words_for(self, offered: Self) -> impl Iterator<Item = (u32, u32)> {
        let known = |select: u32, word: u32| select < 2 || word != 0;
        (0..)
            .zip(self.words().into_iter().zip(offered.words()))
            .filter_map(move |(select, (word, shown))| {
                known(select, shown).then_some((select, word))
            })
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
        (0..u128::BITS)
            .filter(move |bit| self.0 & (1 << bit) != 0)
            .map(move |bit| bit_name(device_type, bit))
    }
}

/// The feature bits of an IOMMU (VIRTIO 1.2, 5.13.3).
const IOMMU: [&str; 7] = [
    "INPUT_RANGE",
    "DOMAIN_RANGE",
    "MAP_UNMAP",
    "BYPASS",
    "PROBE",
    "MMIO",
    "BYPASS_CONFIG",
];

/// The name of one bit. Bits 0 to 23 and from 50 on belong to the device type.
fn bit_name(device_type: u32, bit: u32) -> Cow<'static, str> {
    let name = match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Net) => find::<virtio::net::F>(bit),
        Ok(virtio::Id::Block) => find::<virtio::blk::F>(bit),
        Ok(virtio::Id::Iommu) => IOMMU
            .get(bit as usize)
            .copied()
            .or_else(|| find::<virtio::F>(bit)),
        _ => find::<virtio::F>(bit),
    };
    name.map_or_else(|| Cow::Owned(format!("bit_{bit}")), Cow::Borrowed)
}

fn find<F: FeatureBits>(bit: u32) -> Option<&'static str> {
    F::FLAGS
        .iter()
        .find(|flag| flag.value().bits().to_ne() == 1_u128 << bit)
        .map(|flag| flag.name())
}

impl From<virtio::F> for Features {
    fn from(features: virtio::F) -> Self {
        Self(features.bits().to_ne())
    }
}

impl From<virtio::net::F> for Features {
    fn from(features: virtio::net::F) -> Self {
        Self(features.bits().to_ne())
    }
}

impl From<virtio::blk::F> for Features {
    fn from(features: virtio::blk::F) -> Self {
        Self(features.bits().to_ne())
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
    RingFeatures::NONE
        .with_packed(features.contains(virtio::F::RING_PACKED))
        .with_event_idx(features.contains(virtio::F::EVENT_IDX))
        .with_indirect(features.contains(virtio::F::INDIRECT_DESC))
        .with_in_order(features.contains(virtio::F::IN_ORDER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
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
        assert_eq!(names(bit_5, 23), ["MMIO"]);
    }

    #[test]
    fn transport_features_have_the_same_name_for_every_type() {
        let features = Features::from(virtio::F::VERSION_1 | virtio::F::EVENT_IDX);
        for device_type in [1, 2, 4, 23, 1000] {
            assert_eq!(names(features, device_type), ["EVENT_IDX", "VERSION_1"]);
        }
    }

    #[test]
    fn the_upper_half_has_names_too() {
        let features = Features::from(virtio::net::F::RSS_CONTEXT) | Features::from_bits(1 << 127);
        assert_eq!(features.bits(), 1 << 64 | 1 << 127);
        assert_eq!(names(features, 1), ["RSS_CONTEXT", "bit_127"]);
        assert_eq!(features.to_string(), "0x80000000000000010000000000000000");
    }

    #[test]
    fn words_make_the_features_that_they_are_of() {
        let words = [0x8000_0001, 3, 1, 0x8000_0000];
        let features = Features::from_words(words);
        assert_eq!(
            features.bits(),
            0x8000_0000_0000_0001_0000_0003_8000_0001_u128
        );
        assert_eq!(features.words(), words);
        assert_eq!(Features::from_words([5, 1, 0, 0]).bits(), 1 << 32 | 5);
    }

    #[test]
    fn a_selector_that_is_not_decoded_makes_no_features() {
        // Each word but the first is the second (QEMU's virtio-mmio), and a selector of one bit.
        for words in [[5, 1, 1, 1], [5, 1, 5, 1], [u32::MAX; 4]] {
            let features = Features::from_words(words).bits();
            assert_eq!(features >> 64, 0, "{words:?}");
            assert_eq!(features & 0xffff_ffff, words[0].into());
        }
    }

    #[test]
    fn words_that_a_device_does_not_have_are_not_written() {
        let wanted = Features::from_bits(1 << 32 | 1 << 64);
        let old = Features::from_bits(1 << 32 | 7);
        let written: Vec<_> = Features::from_bits(1 << 32).words_for(old).collect();
        assert_eq!(written, [(0, 0), (1, 1)]);
        let new = old | Features::from_bits(3 << 64);
        let written: Vec<_> = wanted.words_for(new).collect();
        assert_eq!(written, [(0, 0), (1, 1), (2, 1)]);
        // What an earlier attempt has accepted is taken back.
        let written: Vec<_> = old.words_for(new).collect();
        assert_eq!(written, [(0, 7), (1, 1), (2, 0)]);
    }
}
