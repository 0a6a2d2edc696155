//! What an IOMMU says of an endpoint (VIRTIO 1.2, 5.13.6.6).

use alloc::vec::Vec;

use vdpa::iotlb::IovaRange;

/// A property begins with its type and the length of the rest.
const HEAD: usize = 4;
/// The upper bits of a type are for later use.
const TYPE: u16 = 0xfff;
const NONE: u16 = 0;
const RESERVED_MEMORY: u16 = 1;
/// A reserved range: subtype, three bytes of zeroes, first and last address.
const RANGE: usize = 4 + 2 * 8;
const MESSAGES: u8 = 1;

/// The properties contradict themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the properties of an endpoint make no sense")]
pub(crate) struct Malformed;

/// Addresses that are not to be mapped for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) ranges: Vec<IovaRange>,
    /// Whether the endpoint's interrupt messages are among them, so that they reach their goal.
    pub(crate) has_messages: bool,
}

impl Reserved {
    /// Reads what an IOMMU has written, of which nothing is believed.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reserved = Self::default();
        while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
            let [kind, len] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
            if kind & TYPE == NONE {
                return Ok(reserved);
            }
            let (value, behind) = rest.split_at_checked(len.into()).ok_or(Malformed)?;
            // Properties that the driver does not know are skipped.
            if kind & TYPE == RESERVED_MEMORY {
                reserved.add(value)?;
            }
            bytes = behind;
        }
        Ok(reserved)
    }

    fn add(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let value: &[u8; RANGE] = value.first_chunk().ok_or(Malformed)?;
        let [[first, last]] = value[4..].as_chunks::<8>().0.as_chunks::<2>().0 else {
            return Err(Malformed);
        };
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        let range = IovaRange::from_bounds(first, last).map_err(|_| Malformed)?;
        self.ranges.push(range);
        self.has_messages |= value[0] == MESSAGES;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn property(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).unwrap();
        [&kind.to_le_bytes()[..], &len.to_le_bytes(), value].concat()
    }

    fn range(subtype: u8, first: u64, last: u64) -> Vec<u8> {
        let value = [
            &[subtype, 0, 0, 0][..],
            &first.to_le_bytes(),
            &last.to_le_bytes(),
        ]
        .concat();
        property(RESERVED_MEMORY, &value)
    }

    fn iova(first: u64, last: u64) -> IovaRange {
        IovaRange::from_bounds(first, last).unwrap()
    }

    #[test]
    fn reserved_ranges_are_found_among_other_properties() {
        let bytes = [
            range(0, 0x1000, 0x1fff),
            property(0x777, &[1; 12]),
            range(1, 0xfee0_0000, 0xfeef_ffff),
            vec![0; 8],
            range(0, 7, 8),
        ]
        .concat();
        let expected = Reserved {
            ranges: vec![iova(0x1000, 0x1fff), iova(0xfee0_0000, 0xfeef_ffff)],
            has_messages: true,
        };
        assert_eq!(Reserved::parse(&bytes), Ok(expected));
    }

    #[test]
    fn a_kind_of_range_that_nobody_knows_is_reserved_and_the_upper_bits_of_a_type_say_nothing() {
        let mut bytes = range(9, 0, u64::MAX);
        bytes[1] |= 0xf0;
        let reserved = Reserved::parse(&bytes).unwrap();
        assert_eq!(reserved.ranges, [IovaRange::ALL]);
        assert!(!reserved.has_messages);
    }

    #[test]
    fn properties_end_with_the_buffer() {
        assert_eq!(Reserved::parse(&[]), Ok(Reserved::default()));
        assert_eq!(Reserved::parse(&[1, 0, 9]), Ok(Reserved::default()));
        assert_eq!(Reserved::parse(&range(0, 1, 1)).unwrap().ranges.len(), 1);
    }

    #[test]
    fn properties_that_cannot_be_are_refused() {
        let whole = range(1, 0x1000, 0x1fff);
        assert_eq!(Reserved::parse(&whole[..whole.len() - 1]), Err(Malformed));
        assert_eq!(Reserved::parse(&range(1, 2, 1)), Err(Malformed));
        assert_eq!(
            Reserved::parse(&property(RESERVED_MEMORY, &[0; 19])),
            Err(Malformed)
        );
    }
}
