//! Which drivers may claim a device, and who is asked first. Looks, and changes nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{BusDevice, Driver, Exactness};

/// A driver that matches a device.
pub(super) struct Candidate<D: BusDevice> {
    pub(super) driver: Arc<dyn Driver<D>>,
    pub(super) matched: Matched,
}

/// Through what a driver matches a device. What is smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Matched {
    /// A row of the driver's id table.
    Row(Exactness, usize),
    /// The driver's name.
    Name,
    /// Nothing but the device's override.
    Override,
}

impl Matched {
    /// What orders two drivers: which row it is does not.
    fn rank(self) -> Self {
        match self {
            Self::Row(exactness, _) => Self::Row(exactness, 0),
            other => other,
        }
    }

    /// The row of the driver's table that has matched.
    pub(super) fn row<D: BusDevice>(self, driver: &dyn Driver<D>) -> Option<&D::Id> {
        match self {
            Self::Row(_, index) => driver.ids().get(index),
            Self::Name | Self::Override => None,
        }
    }
}

/// The drivers that may claim the device, best first. `drivers` is in the order of registration.
pub(super) fn candidates<D: BusDevice>(
    device: &D,
    override_name: Option<&str>,
    drivers: &[Arc<dyn Driver<D>>],
) -> Vec<Candidate<D>> {
    let mut matching: Vec<Candidate<D>> = Vec::new();
    for driver in drivers {
        let Some(matched) = matched(device, override_name, driver.as_ref()) else {
            continue;
        };
        // Among equals the order of registration stays.
        let better = |other: &Candidate<D>| other.matched.rank() <= matched.rank();
        let place = matching.partition_point(better);
        let driver = Arc::clone(driver);
        matching.insert(place, Candidate { driver, matched });
    }
    matching
}

/// Through what the driver may claim the device, if it may.
pub(super) fn matched<D: BusDevice>(
    device: &D,
    override_name: Option<&str>,
    driver: &dyn Driver<D>,
) -> Option<Matched> {
    match override_name {
        Some(name) if name != driver.name() => None,
        Some(_) => Some(by_ids_or_name(device, driver).unwrap_or(Matched::Override)),
        None => by_ids_or_name(device, driver),
    }
}

/// By the table alone if there is one, otherwise by the name.
fn by_ids_or_name<D: BusDevice>(device: &D, driver: &dyn Driver<D>) -> Option<Matched> {
    let ids = driver.ids();
    if ids.is_empty() {
        return (device.match_name() == driver.name()).then_some(Matched::Name);
    }
    let rows = ids.iter().enumerate().filter(|(_, id)| device.matches(id));
    rows.map(|(index, id)| Matched::Row(D::exactness(id), index))
        .min()
}
