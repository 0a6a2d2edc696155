//! The checksum of the Internet protocols (RFC 1071), for who finishes one or looks whether it is
//! right.

/// A sum of 16-bit words in network order, not yet folded. RFC 1071, 2 (B): the sum may be made in
/// the processor's order, eight bytes at a time, and turned around at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd one at the end is padded, so nothing may be added after it.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_ne_bytes(*word);
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        let (halves, odd) = rest.as_chunks::<2>();
        for half in halves {
            sum += u64::from(u16::from_ne_bytes(*half));
        }
        if let [last] = odd {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(sum)
    }

    /// Adds one word, which is in the processor's order.
    #[inline]
    #[must_use]
    pub fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// The one's complement sum, in the processor's order: all ones, if what was added holds its
    /// own checksum.
    #[inline]
    #[must_use]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(u16::try_from(sum).expect("folded to 16 bits"))
    }
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

    #[test]
    fn sums_of_every_length_match_the_word_by_word_sum() {
        let bytes: Vec<u8> = (0..1500u32).map(|i| (i * 31 + 250) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(
                Sum::default().add_bytes(&bytes[..len]).fold(),
                reference(&bytes[..len])
            );
        }
        assert_eq!(
            Sum::default().add_bytes(&[0xff; 65_535]).fold(),
            reference(&[0xff; 65_535])
        );
    }
}
