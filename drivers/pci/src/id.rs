//! Rows of a driver's table of PCI ids.

use core::ops::RangeInclusive;

use vdpa::bus::Exactness;

use super::header::Identity;

/// Describes the functions that a driver can drive. Build it from [`PciId::ANY`]:
///
/// ```
/// # use pci::PciId;
/// const TABLE: &[PciId] = &[PciId { vendor: Some(0x1af4), devices: 0x1040..=0x107f, ..PciId::ANY }];
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciId {
    /// The vendor; `None` matches any.
    pub vendor: Option<u16>,
    /// The vendor's devices.
    pub devices: RangeInclusive<u16>,
    /// The vendor of the card; `None` matches any.
    pub subvendor: Option<u16>,
    /// The card; `None` matches any.
    pub subdevice: Option<u16>,
    /// The class, as far as [`PciId::class_mask`] says.
    pub class: u32,
    /// Which bits of the class count; 0 matches any.
    pub class_mask: u32,
    /// What the driver wants to know about the row that has matched.
    pub driver_data: u64,
}

impl PciId {
    /// Matches every function.
    pub const ANY: Self = Self {
        vendor: None,
        devices: 0..=u16::MAX,
        subvendor: None,
        subdevice: None,
        class: 0,
        class_mask: 0,
        driver_data: 0,
    };

    /// Whether the row describes the function.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        let is = |wanted: Option<u16>, found| wanted.is_none_or(|wanted| wanted == found);
        is(self.vendor, identity.vendor)
            && self.devices.contains(&identity.device)
            && is(self.subvendor, identity.subvendor)
            && is(self.subdevice, identity.subdevice)
            && (self.class ^ identity.class) & self.class_mask == 0
    }

    /// A row is exact if it names one kind of card.
    pub(super) fn exactness(&self) -> Exactness {
        let one_device = self.devices.start() == self.devices.end();
        let ids = [self.vendor, self.subvendor, self.subdevice];
        if one_device && ids.iter().all(Option::is_some) {
            Exactness::Exact
        } else {
            Exactness::Wildcard
        }
    }
}
