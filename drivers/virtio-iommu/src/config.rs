//! What an IOMMU says of itself (VIRTIO 1.2, 5.13.3 and 5.13.4).

use alloc::format;
use alloc::string::String;

use vdpa::Features;
use vdpa::bus::ProbeError;
use vdpa::iotlb::IovaRange;
use vdpa::tree::Bytes;
use virtio_bus::{VirtioClaim, VirtioDevice};

use crate::error::Unsuitable;

/// Feature bits. Of `VIRTIO_IOMMU_F_BYPASS` (3) there is none: without it an endpoint in no domain
/// reaches nothing.
pub(crate) mod feature {
    use vdpa::Features;

    pub(crate) const INPUT_RANGE: Features = Features::from_bits(1 << 0);
    pub(crate) const DOMAIN_RANGE: Features = Features::from_bits(1 << 1);
    pub(crate) const MAP_UNMAP: Features = Features::from_bits(1 << 2);
    pub(crate) const PROBE: Features = Features::from_bits(1 << 4);
    pub(crate) const MMIO: Features = Features::from_bits(1 << 5);
    pub(crate) const BYPASS_CONFIG: Features = Features::from_bits(1 << 6);

    /// All that are of use.
    pub(crate) fn all() -> Features {
        [
            INPUT_RANGE,
            DOMAIN_RANGE,
            MAP_UNMAP,
            PROBE,
            MMIO,
            BYPASS_CONFIG,
        ]
        .into_iter()
        .fold(Features::EMPTY, Features::union)
    }
}

/// `virtio_iommu_config`: page_size_mask, input_range, domain_range, probe_size, bypass.
const FIXED_LEN: usize = 36;
const BYPASS: u32 = 36;
const _: () = assert!(FIXED_LEN == 8 + 2 * 8 + 2 * 4 + 4 && BYPASS as usize == FIXED_LEN);

/// More than the properties of an endpoint ever take.
const PROBE_SIZE_MAX: u32 = 0x1_0000;

/// What an IOMMU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The smallest page, a power of two.
    pub(crate) page: u64,
    /// The addresses that it translates: whole pages.
    pub(crate) input: IovaRange,
    /// The first domain and the last.
    pub(crate) domains: (u32, u32),
    /// How many bytes the properties of an endpoint may take, if it tells them.
    pub(crate) probe_size: Option<u32>,
    /// Whether a mapping may be said to be of device registers.
    pub(crate) mmio: bool,
}

impl Limits {
    /// Asks an IOMMU that has agreed on features.
    pub(crate) fn read(device: &VirtioDevice, features: Features) -> Result<Self, ProbeError> {
        let mut bytes = [0; FIXED_LEN];
        device.read_config(0, &mut bytes)?;
        Self::parse(&bytes, features).map_err(ProbeError::unsuitable)
    }

    fn parse(bytes: &[u8; FIXED_LEN], features: Features) -> Result<Self, Unsuitable> {
        let long = |at: usize| u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32;
        let mask = long(0);
        if mask == 0 {
            return Err(Unsuitable::PageSize);
        }
        let page = 1 << mask.trailing_zeros();
        let input = match features.contains(feature::INPUT_RANGE) {
            true => IovaRange::from_bounds(long(8), long(16)).ok(),
            false => Some(IovaRange::ALL),
        };
        let input = input.and_then(|range| whole_pages(range, page));
        let domains = match features.contains(feature::DOMAIN_RANGE) {
            true => (word(bytes, 24), word(bytes, 28)),
            false => (0, u32::MAX),
        };
        if domains.0 > domains.1 {
            return Err(Unsuitable::DomainRange);
        }
        let probe_size = features
            .contains(feature::PROBE)
            .then(|| word(bytes, 32))
            .filter(|size| *size > 0);
        if let Some(size) = probe_size.filter(|size| *size > PROBE_SIZE_MAX) {
            return Err(Unsuitable::ProbeSize(size));
        }
        Ok(Self {
            page,
            input: input.ok_or(Unsuitable::InputRange)?,
            domains,
            probe_size,
            mmio: features.contains(feature::MMIO),
        })
    }

    /// How many domains there can be at once. Of all 2^32 one is left out.
    pub(crate) fn domain_count(&self) -> u32 {
        (self.domains.1 - self.domains.0).saturating_add(1)
    }

    /// Whether the range begins and ends with a page.
    pub(crate) fn is_whole_pages(&self, range: IovaRange) -> bool {
        range.first().is_multiple_of(self.page)
            && range.last().wrapping_add(1).is_multiple_of(self.page)
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        format!("{} pages at {}", Bytes(self.page), self.input)
    }
}

/// Lets nobody reach memory who is in no domain.
pub(crate) fn end_bypass(device: &VirtioClaim, features: Features) -> Result<(), ProbeError> {
    if !features.contains(feature::BYPASS_CONFIG) {
        return Ok(());
    }
    device.write_config(BYPASS, &[0])?;
    let mut bypass = [1];
    device.read_config(BYPASS, &mut bypass)?;
    match bypass {
        [0] => Ok(()),
        _ => Err(ProbeError::unsuitable(Unsuitable::Bypass)),
    }
}

/// The whole pages of a range.
fn whole_pages(range: IovaRange, page: u64) -> Option<IovaRange> {
    let first = range.first().checked_next_multiple_of(page)?;
    let end = range.last().wrapping_add(1);
    let end = end - end % page;
    // The end of all addresses is 0 here, and so is one in the first page.
    let last = end.wrapping_sub(1);
    if last > range.last() {
        return None;
    }
    IovaRange::from_bounds(first, last).ok()
}

fn word(bytes: &[u8; FIXED_LEN], at: usize) -> u32 {
    let word = bytes[at..].first_chunk().expect("a field of the structure");
    u32::from_le_bytes(*word)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn config(mask: u64, input: (u64, u64), domains: (u32, u32), probe: u32) -> [u8; FIXED_LEN] {
        let mut bytes = Vec::new();
        for long in [mask, input.0, input.1] {
            bytes.extend(long.to_le_bytes());
        }
        for word in [domains.0, domains.1, probe] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.try_into().unwrap()
    }

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::from_bounds(first, last).unwrap()
    }

    #[test]
    fn fields_count_if_their_features_were_agreed_on() {
        let bytes = config(0x20_1000, (0x800, 0x2fff), (3, 9), 512);
        let all = Limits::parse(&bytes, feature::all()).unwrap();
        let expected = Limits {
            page: 0x1000,
            input: range(0x1000, 0x2fff),
            domains: (3, 9),
            probe_size: Some(512),
            mmio: true,
        };
        assert_eq!((all, all.domain_count()), (expected, 7));
        let plain = Limits::parse(&bytes, feature::MAP_UNMAP).unwrap();
        assert_eq!(plain.input, IovaRange::ALL);
        assert_eq!((plain.domains, plain.probe_size), ((0, u32::MAX), None));
        assert_eq!(plain.domain_count(), u32::MAX);
        assert!(!plain.mmio);
    }

    #[test]
    fn a_range_keeps_its_whole_pages() {
        let page = 0x1_0000;
        assert_eq!(whole_pages(IovaRange::ALL, page), Some(IovaRange::ALL));
        assert_eq!(
            whole_pages(range(1, 0x3_fffe), page),
            Some(range(page, 0x2_ffff))
        );
        assert_eq!(
            whole_pages(range(0, page - 1), page),
            Some(range(0, 0xffff))
        );
        for (first, last) in [(0, 0xfffe), (1, 0x1_fffe), (u64::MAX - 5, u64::MAX)] {
            assert_eq!(whole_pages(range(first, last), page), None);
        }
        let half = 1 << 63;
        assert_eq!(
            whole_pages(range(1, u64::MAX), half),
            Some(range(half, u64::MAX))
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let cases = [
            (config(0, (0, 1), (0, 0), 0), Unsuitable::PageSize),
            (config(0x1000, (9, 8), (0, 0), 0), Unsuitable::InputRange),
            (
                config(0x1000, (0, 0xffe), (0, 0), 0),
                Unsuitable::InputRange,
            ),
            (
                config(0x1000, (0, 0xffff), (2, 1), 0),
                Unsuitable::DomainRange,
            ),
            (
                config(0x1000, (0, 0xffff), (0, 0), 0x1_0001),
                Unsuitable::ProbeSize(0x1_0001),
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(Limits::parse(&bytes, feature::all()), Err(error));
        }
    }
}
