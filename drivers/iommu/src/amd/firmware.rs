//! Memory that firmware goes on using through devices (IVMD; AMD 48882, 5.2.2.3).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Ordering;

use vdpa::dma::IovaSpace;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::DomainChange;
use virtq::DmaAddr;

use crate::tables::{Ivhd, Ivmd, IvmdFlags};

const PAGE: u64 = 0x1000;

/// Memory that devices use at its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) range: IovaRange,
    /// Empty: nobody knows what it is, and nothing is mapped there.
    permission: Permission,
}

impl Region {
    fn key(self) -> (u64, u64, u8) {
        let Self { range, permission } = self;
        (range.first(), range.last(), permission.bits())
    }
}

impl Ord for Region {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Region {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What each device uses that firmware has named.
#[derive(Debug)]
pub(super) struct Firmware {
    devices: BTreeMap<u16, BTreeSet<Region>>,
}

impl Firmware {
    /// What concerns the devices of an IOMMU that translates addresses up to `last`.
    pub(super) fn new(unit: &Ivhd, memory: &[Ivmd], last: u64) -> Self {
        let mut devices: BTreeMap<u16, BTreeSet<Region>> = BTreeMap::new();
        let memory = memory.iter().filter(|block| block.segment == unit.segment);
        for block in memory {
            let Some(region) = region(block, last) else {
                continue;
            };
            for device in block.devices.clone() {
                let Some(entry) = unit.device(device) else {
                    continue;
                };
                for id in [device, entry.alias.unwrap_or(device)] {
                    devices.entry(id).or_default().insert(region);
                }
            }
        }
        Self { devices }
    }

    /// What one or the other of some devices uses.
    pub(super) fn of(&self, devices: &[u16]) -> Vec<Region> {
        let regions = devices.iter().filter_map(|device| self.devices.get(device));
        let regions: BTreeSet<Region> = regions.flatten().copied().collect();
        regions.into_iter().collect()
    }

    /// All devices of which firmware says something, and what.
    pub(super) fn devices(&self) -> impl Iterator<Item = (u16, Vec<Region>)> {
        let regions = |regions: &BTreeSet<Region>| regions.iter().copied().collect();
        self.devices
            .iter()
            .map(move |(id, set)| (*id, regions(set)))
    }
}

/// Makes regions lead to themselves. Of those that overlap the first counts.
pub(super) fn identity(regions: &[Region]) -> Vec<DomainChange> {
    let mut mapped: Vec<IovaRange> = Vec::new();
    let mut changes = Vec::new();
    for region in regions
        .iter()
        .filter(|region| !region.permission.is_empty())
    {
        let rest = IovaSpace::new(&[region.range], &mapped);
        for range in rest.iter().flat_map(|rest| rest.ranges()) {
            changes.push(DomainChange::Map {
                range: *range,
                permission: region.permission,
                addr: DmaAddr(range.first()),
            });
        }
        mapped.push(region.range);
    }
    changes
}

/// Whole pages of a block. What is excluded from translation is mapped: a range of the IOMMU's own
/// for it would be one for all devices.
fn region(block: &Ivmd, last: u64) -> Option<Region> {
    let end = block.start + (block.length - 1);
    let range = IovaRange::from_bounds(block.start & !(PAGE - 1), end | (PAGE - 1)).ok()?;
    let mut permission = Permission::empty();
    if block.flags.contains(IvmdFlags::EXCLUSION) {
        permission = Permission::all();
    } else if block.flags.contains(IvmdFlags::UNITY) {
        permission.set(Permission::READ, block.flags.contains(IvmdFlags::READ));
        permission.set(Permission::WRITE, block.flags.contains(IvmdFlags::WRITE));
    }
    if range.last() > last {
        log::warn!("firmware uses {range}, which the IOMMU does not translate");
        permission = Permission::empty();
    }
    Some(Region { range, permission })
}
