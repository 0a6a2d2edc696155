//! What a function is by its ids, and which driver of the guest takes it.
//!
//! The tables are those of `virtio_pci::ifcvf` and `virtio_pci::vp_vdpa`; a test holds them against
//! each other.

use std::fmt;

/// The vendor of virtio functions (VIRTIO 1.2, 4.1.2).
const VIRTIO: u16 = 0x1af4;

/// The vendor in the subsystem ids of Intel's functions.
const INTEL: u16 = 0x8086;

/// Modern device ids count the virtio device type from here (VIRTIO 1.2, 4.1.2.1).
const MODERN_BASE: u16 = 0x1040;

/// Device and subsystem device of the functions that `ifcvf` takes.
const IFCVF: [(u16, u16); 5] = [
    (0x1041, 0x001a),
    (0x1000, 0x0001),
    (0x1001, 0x0002),
    (0x1042, 0x0002),
    (0x1042, 0x0000),
];

/// The ids of a function, as its configuration space has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Who made the interface.
    pub vendor: u16,
    /// The vendor's device.
    pub device: u16,
    /// Who made the card.
    pub subvendor: u16,
    /// The card.
    pub subdevice: u16,
    /// Base class, subclass and interface, a byte each.
    pub class: u32,
}

/// What a function is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network card.
    Net,
    /// A disk.
    Blk,
}

/// A driver of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestDriver {
    /// The one for Intel's functions.
    Ifcvf,
    /// The one for every other modern virtio function.
    VpVdpa,
}

impl Ids {
    /// What the guest makes of the function; `None` when it has no use for it.
    pub fn taken(&self) -> Option<(GuestDriver, Kind)> {
        if self.vendor != VIRTIO {
            return None;
        }
        let device_type = match self.device {
            0x1000..MODERN_BASE => self.subdevice,
            MODERN_BASE..=0x107f => self.device - MODERN_BASE,
            _ => return None,
        };
        let known = self.subvendor == INTEL && IFCVF.contains(&(self.device, self.subdevice));
        let driver = if known {
            GuestDriver::Ifcvf
        } else {
            GuestDriver::VpVdpa
        };
        match device_type {
            1 => Some((driver, Kind::Net)),
            2 => Some((driver, Kind::Blk)),
            _ => None,
        }
    }

    /// Whether it is a bridge to another bus: those belong to every group and are never given away.
    pub fn is_bridge(&self) -> bool {
        matches!(self.class >> 8, 0x0604 | 0x0607 | 0x0609)
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vendor,
            device,
            subvendor,
            subdevice,
            class,
        } = self;
        write!(
            f,
            "{vendor:04x}:{device:04x}, subsystem {subvendor:04x}:{subdevice:04x}, class {class:06x}"
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Net => "network",
            Self::Blk => "block",
        })
    }
}

impl fmt::Display for GuestDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ifcvf => "ifcvf",
            Self::VpVdpa => "vp_vdpa",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(vendor: u16, device: u16, subvendor: u16, subdevice: u16) -> Ids {
        Ids {
            vendor,
            device,
            subvendor,
            subdevice,
            class: 0,
        }
    }

    #[test]
    fn functions_are_taken_by_their_ids() {
        use GuestDriver::{Ifcvf, VpVdpa};
        for (vendor, device, subvendor, subdevice, expected) in [
            (VIRTIO, 0x1041, INTEL, 0x001a, Some((Ifcvf, Kind::Net))),
            (VIRTIO, 0x1000, INTEL, 0x0001, Some((Ifcvf, Kind::Net))),
            (VIRTIO, 0x1001, INTEL, 0x0002, Some((Ifcvf, Kind::Blk))),
            (VIRTIO, 0x1042, INTEL, 0x0002, Some((Ifcvf, Kind::Blk))),
            (VIRTIO, 0x1042, INTEL, 0x0000, Some((Ifcvf, Kind::Blk))),
            (VIRTIO, 0x1041, VIRTIO, 0x1100, Some((VpVdpa, Kind::Net))),
            (VIRTIO, 0x1041, INTEL, 0x001b, Some((VpVdpa, Kind::Net))),
            (VIRTIO, 0x1000, VIRTIO, 0x0001, Some((VpVdpa, Kind::Net))),
            (VIRTIO, 0x1001, VIRTIO, 0x0002, Some((VpVdpa, Kind::Blk))),
            (VIRTIO, 0x1044, VIRTIO, 0x0004, None),
            (VIRTIO, 0x1080, INTEL, 0x0001, None),
            (VIRTIO, 0x0fff, INTEL, 0x0001, None),
            (INTEL, 0x1041, INTEL, 0x001a, None),
        ] {
            let found = ids(vendor, device, subvendor, subdevice).taken();
            assert_eq!(
                found, expected,
                "{device:04x} {subvendor:04x}:{subdevice:04x}"
            );
        }
    }

    #[test]
    fn bridges_are_those_to_another_bus() {
        for (class, expected) in [(0x060400, true), (0x060000, false), (0x020000, false)] {
            let function = Ids {
                class,
                ..ids(INTEL, 0, 0, 0)
            };
            assert_eq!(function.is_bridge(), expected, "{class:06x}");
        }
    }
}
