//! The cards: their PCI ids, and where each keeps the state of its queues.

use core::ops::RangeInclusive;

use pci::{Identity, PciId};
use vdpa::bus::ProbeError;

use crate::unsuitable::Unsuitable;

const VIRTIO: u16 = 0x1af4;
const INTEL: u16 = 0x8086;
/// Modern device ids count the virtio device type from here (VIRTIO 1.2, 4.1.2.1).
const MODERN_BASE: u16 = 0x1040;
const QEMU: u16 = 0x1100;

/// Where in the live-migration block the state of queue `q` is. Three layouts are in public use;
/// all of them agree for the first two queues of a network function.
///
/// As a number it is the [`driver_data`](PciId::driver_data) of a row; 0 is a function without the
/// block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateLayout {
    /// 32 bits at `0x20 + q / 2 * 0x40 + q % 2 * 4`: the next available index, and above it the
    /// next used one.
    PerPair = 1,
    /// 32 bits at `0x20 + q * 0x40`, as for [`PerPair`](Self::PerPair).
    PerQueue = 2,
    /// 16 bits at `0x20 + q * 4`: the next available index.
    Flat = 3,
}

/// FPGA PAC N3000, network (Linux and DPDK).
const N3000_NET: StateLayout = StateLayout::PerPair;
/// C5000X-PL and F2000X-PL, network: the vendor's code for Linux since 6.5.
const C5000X_NET: StateLayout = StateLayout::Flat;
/// C5000X-PL, disk (DPDK).
const C5000X_BLK: StateLayout = StateLayout::PerQueue;
/// The disk that is not transitional (DPDK).
const MODERN_BLK: StateLayout = StateLayout::PerQueue;
/// The same with the subsystem id that it has by default (DPDK).
const MODERN_BLK_DEFAULT: StateLayout = StateLayout::PerQueue;

/// The cards that are known.
pub(super) const IDS: [PciId; 5] = [
    row(0x1041, 0x001a, N3000_NET),
    row(0x1000, 0x0001, C5000X_NET),
    row(0x1001, 0x0002, C5000X_BLK),
    row(0x1042, 0x0002, MODERN_BLK),
    row(0x1042, 0x0000, MODERN_BLK_DEFAULT),
];

/// QEMU's modern network card and disk, for runs without hardware; for
/// [`with_ids`](super::Ifcvf::with_ids). They have no live-migration block: their common
/// configuration is where it would be.
pub const QEMU_IDS: [PciId; 2] = [qemu(0x1041), qemu(0x1042)];

const fn row(device: u16, subdevice: u16, layout: StateLayout) -> PciId {
    PciId {
        vendor: Some(VIRTIO),
        devices: RangeInclusive::new(device, device),
        subvendor: Some(INTEL),
        subdevice: Some(subdevice),
        driver_data: layout as u64,
        ..PciId::ANY
    }
}

const fn qemu(device: u16) -> PciId {
    PciId {
        vendor: Some(VIRTIO),
        devices: RangeInclusive::new(device, device),
        subvendor: Some(VIRTIO),
        subdevice: Some(QEMU),
        ..PciId::ANY
    }
}

impl StateLayout {
    /// What the `driver_data` of a row says.
    pub(super) fn of(row: u64) -> Option<Self> {
        let known = [Self::PerPair, Self::PerQueue, Self::Flat];
        known.into_iter().find(|layout| *layout as u64 == row)
    }

    /// Where the state of a queue is in the block.
    pub(super) fn offset(self, queue: u16) -> u64 {
        let queue = u64::from(queue);
        0x20 + match self {
            Self::PerPair => queue / 2 * 0x40 + queue % 2 * 4,
            Self::PerQueue => queue * 0x40,
            Self::Flat => queue * 4,
        }
    }
}

/// The virtio device type of a function, which is a network card or a disk.
pub(super) fn device_type(identity: &Identity) -> Result<u32, ProbeError> {
    let device_type = match identity.device.checked_sub(MODERN_BASE) {
        Some(device_type) => device_type,
        None => identity.subdevice,
    };
    match virtio::Id::from(u8::try_from(device_type).unwrap_or(0)) {
        virtio::Id::Net | virtio::Id::Block => Ok(u32::from(device_type)),
        _ => Err(ProbeError::unsuitable(Unsuitable::Type)),
    }
}
