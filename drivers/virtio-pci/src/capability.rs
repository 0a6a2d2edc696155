//! Where a function's virtio structures lie: the vendor capabilities, with everything checked that
//! a function could get wrong.
//!
//! Source: VIRTIO 1.2, 4.1.4.

use core::ops::Range;

use pci::{CapabilityError, Claim, ConfigSpace, ResourceError, VENDOR_SPECIFIC, capabilities};
use virtio::pci::CapCfgType;

/// Offsets in a capability.
const LENGTH: u16 = 2;
const TYPE: u16 = 3;
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const SIZE: u16 = 12;
const MULTIPLIER: u16 = 16;
/// Every BAR.
pub const ANY_BAR: &[u8] = &[0, 1, 2, 3, 4, 5];

/// Capabilities lie in the first 256 bytes.
const CONFIG_END: u16 = 256;

/// A structure that a driver needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Common configuration.
    Common,
    /// Notifications.
    Notify,
    /// ISR status.
    Isr,
    /// Device-specific configuration.
    Device,
}

impl Structure {
    fn of(kind: u8) -> Option<Self> {
        match CapCfgType::from(kind) {
            CapCfgType::Common => Some(Self::Common),
            CapCfgType::Notify => Some(Self::Notify),
            CapCfgType::Isr => Some(Self::Isr),
            CapCfgType::Device => Some(Self::Device),
            _ => None,
        }
    }

    /// The bytes that a driver uses at least.
    fn size_min(self) -> u64 {
        match self {
            Self::Common => 0x38,
            Self::Notify => 2,
            Self::Isr | Self::Device => 1,
        }
    }

    /// The alignment that the specification demands.
    fn align(self) -> u64 {
        match self {
            Self::Common | Self::Device => 4,
            Self::Notify => 2,
            Self::Isr => 1,
        }
    }

    /// The length of its capability.
    fn capability_len(self) -> u16 {
        match self {
            Self::Notify => 20,
            Self::Common | Self::Isr | Self::Device => 16,
        }
    }
}

/// What is wrong with a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The capability is shorter than what it must hold.
    #[error("a virtio capability is too short")]
    ShortCapability,
    /// It names a BAR that does not exist, has no address or is reserved.
    #[error("a virtio structure is in a BAR that does not exist")]
    NoBar,
    /// It names a BAR where the card has no virtio structure.
    #[error("a virtio structure is in a BAR where the card has none")]
    ForeignBar,
    /// It names a BAR of I/O ports.
    #[error("a virtio structure is in a BAR of I/O ports")]
    IoBar,
    /// The structure does not hold what it must.
    #[error("a virtio structure is too short")]
    ShortStructure,
    /// The structure is not aligned.
    #[error("a virtio structure is misaligned")]
    Misaligned,
    /// The structure ends behind the end of its BAR.
    #[error("a virtio structure ends outside its BAR")]
    OutsideBar,
}

/// Why a function cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The capability list cannot be followed.
    #[error("the capability list is malformed")]
    List(#[from] CapabilityError),
    /// There is no capability for a structure that must be there; a legacy function has none at
    /// all.
    #[error("no modern virtio capabilities; a legacy-only function is not supported")]
    Missing(Structure),
    /// No capability for the structure is acceptable; this is what is wrong with the first.
    #[error("{1}")]
    Unusable(Structure, Defect),
}

/// Where a structure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bar: u8,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Place {
    /// Whether the structure has some of these bytes of a BAR.
    fn touches(&self, bar: u8, bytes: &Range<u64>) -> bool {
        let end = self.offset + self.length;
        self.bar == bar && self.offset < bytes.end && bytes.start < end
    }
}

/// Where all of them lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) common: Place,
    pub(super) notify: Place,
    pub(super) notify_multiplier: u32,
    pub(super) isr: Place,
    /// Not every device type has one.
    pub(super) device: Option<Place>,
}

impl Layout {
    /// Takes the first acceptable capability of each kind (VIRTIO 1.2, 4.1.4.2), which is one of a
    /// structure in one of `bars`.
    pub(super) fn read(claim: &Claim, bars: &[u8]) -> Result<Self, LayoutError> {
        let config = claim.config();
        let mut found = [const {
            Found {
                place: None,
                defect: None,
            }
        }; 4];
        let mut notify_multiplier = 0;
        for capability in capabilities(config)? {
            let at = capability.offset;
            if capability.id != VENDOR_SPECIFIC {
                continue;
            }
            let Some(structure) = Structure::of(config.read8(at + TYPE)) else {
                continue;
            };
            let found = &mut found[structure as usize];
            if found.place.is_some() {
                continue;
            }
            match place(claim, bars, structure, at) {
                Ok(place) => {
                    found.place = Some(place);
                    if structure == Structure::Notify {
                        notify_multiplier = config.read32(at + MULTIPLIER);
                    }
                }
                Err(defect) => {
                    found.defect.get_or_insert(defect);
                }
            }
        }
        let [common, notify, isr, device] = found;
        let device = match (device.place, device.defect) {
            (Some(place), _) => Some(place),
            (None, Some(defect)) => return Err(LayoutError::Unusable(Structure::Device, defect)),
            (None, None) => None,
        };
        Ok(Self {
            common: common.need(Structure::Common)?,
            notify: notify.need(Structure::Notify)?,
            notify_multiplier,
            isr: isr.need(Structure::Isr)?,
            device,
        })
    }
}

impl Layout {
    /// Whether a structure has some of these bytes of a BAR.
    pub(super) fn touches(&self, bar: u8, bytes: &Range<u64>) -> bool {
        self.notify.touches(bar, bytes) || self.others_touch(bar, bytes)
    }

    /// As [`touches`](Self::touches), the notification structure apart.
    pub(super) fn others_touch(&self, bar: u8, bytes: &Range<u64>) -> bool {
        let others = [Some(self.common), Some(self.isr), self.device];
        others
            .iter()
            .flatten()
            .any(|place| place.touches(bar, bytes))
    }
}

struct Found {
    place: Option<Place>,
    defect: Option<Defect>,
}

impl Found {
    fn need(self, structure: Structure) -> Result<Place, LayoutError> {
        self.place.ok_or(match self.defect {
            Some(defect) => LayoutError::Unusable(structure, defect),
            None => LayoutError::Missing(structure),
        })
    }
}

/// Where the capability at `at` says that the structure lies.
fn place(claim: &Claim, bars: &[u8], structure: Structure, at: u16) -> Result<Place, Defect> {
    let config: &ConfigSpace = claim.config();
    let needed = structure.capability_len();
    if u16::from(config.read8(at + LENGTH)) < needed || at + needed > CONFIG_END {
        return Err(Defect::ShortCapability);
    }
    let bar = config.read8(at + BAR);
    if !bars.contains(&bar) {
        let exists = usize::from(bar) < ANY_BAR.len();
        return Err(if exists {
            Defect::ForeignBar
        } else {
            Defect::NoBar
        });
    }
    // In 64 bits the sum of two 32-bit fields cannot wrap.
    let offset = u64::from(config.read32(at + OFFSET));
    let length = u64::from(config.read32(at + SIZE));
    let memory = claim.memory_bar(bar).map_err(|error| match error {
        ResourceError::IoBar => Defect::IoBar,
        _ => Defect::NoBar,
    })?;
    if length < structure.size_min() {
        return Err(Defect::ShortStructure);
    }
    if !offset.is_multiple_of(structure.align()) {
        return Err(Defect::Misaligned);
    }
    if offset + length > memory.size {
        return Err(Defect::OutsideBar);
    }
    Ok(Place {
        bar,
        offset,
        length,
    })
}
