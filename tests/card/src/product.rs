//! The cards that are known: their ids, their type, and which form of the live-migration block they
//! have.
//!
//! Sources: the id tables of Linux (`drivers/vdpa/ifcvf`) and of DPDK (`drivers/vdpa/ifc`).

use std::fmt;
use std::str::FromStr;

use crate::migration::Layout;

/// A card of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// The network VF of the N3000.
    N3000Net,
    /// The network VF of the C5000X-PL and the F2000X-PL, under a transitional id.
    C5000xNet,
    /// The block VF of the C5000X-PL, under a transitional id.
    C5000xBlk,
    /// A block VF under a modern id.
    ModernBlk,
    /// The same with a subsystem that nobody has set.
    ModernBlkDefault,
    /// A network function of plain virtio.
    VirtioNet,
    /// A block function of plain virtio.
    VirtioBlk,
}

/// What a card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network device.
    Net,
    /// A block device.
    Blk,
}

/// The four ids of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Subsystem vendor.
    pub subvendor: u16,
    /// Subsystem device.
    pub subdevice: u16,
}

impl Product {
    /// Those of plain virtio.
    pub const PLAIN: [Self; 2] = [Self::VirtioNet, Self::VirtioBlk];

    /// All IFC VFs.
    pub const ALL: [Self; 5] = [
        Self::N3000Net,
        Self::C5000xNet,
        Self::C5000xBlk,
        Self::ModernBlk,
        Self::ModernBlkDefault,
    ];

    /// What options call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::N3000Net => "n3000-net",
            Self::C5000xNet => "c5000x-net",
            Self::C5000xBlk => "c5000x-blk",
            Self::ModernBlk => "modern-blk",
            Self::ModernBlkDefault => "modern-blk-default",
            Self::VirtioNet => "virtio-net",
            Self::VirtioBlk => "virtio-blk",
        }
    }

    /// The ids in its configuration space.
    #[must_use]
    pub fn id(self) -> Id {
        let (device, subdevice) = match self {
            Self::N3000Net => (0x1041, 0x001a),
            Self::C5000xNet => (0x1000, 0x0001),
            Self::C5000xBlk => (0x1001, 0x0002),
            Self::ModernBlk => (0x1042, 0x0002),
            Self::ModernBlkDefault => (0x1042, 0x0000),
            Self::VirtioNet => (0x1041, 0x1100),
            Self::VirtioBlk => (0x1042, 0x1100),
        };
        Id {
            vendor: 0x1af4,
            device,
            subvendor: if self.is_plain() { 0x1af4 } else { 0x8086 },
            subdevice,
        }
    }

    /// Whether it is none of Intel's, but what the specification describes and nothing else.
    #[must_use]
    pub fn is_plain(self) -> bool {
        Self::PLAIN.contains(&self)
    }

    /// Network or block.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::N3000Net | Self::C5000xNet | Self::VirtioNet => Kind::Net,
            Self::C5000xBlk | Self::ModernBlk | Self::ModernBlkDefault | Self::VirtioBlk => {
                Kind::Blk
            }
        }
    }

    /// The class code: Ethernet controller, or SCSI storage as virtio block devices have it.
    #[must_use]
    pub fn class(self) -> u32 {
        match self.kind() {
            Kind::Net => 0x02_0000,
            Kind::Blk => 0x01_0000,
        }
    }

    /// How its live-migration block is laid out.
    #[must_use]
    pub fn layout(self) -> Layout {
        match self {
            Self::N3000Net | Self::VirtioNet => Layout::PerPair,
            Self::C5000xNet => Layout::Flat,
            Self::C5000xBlk | Self::ModernBlk | Self::ModernBlkDefault | Self::VirtioBlk => {
                Layout::PerQueue
            }
        }
    }
}

impl Kind {
    /// The virtio device type (VIRTIO 1.2, 5).
    #[must_use]
    pub fn device_type(self) -> u32 {
        match self {
            Self::Net => 1,
            Self::Blk => 2,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such card; there are n3000-net, c5000x-net, c5000x-blk, modern-blk, modern-blk-default, virtio-net and \
     virtio-blk"
)]
pub struct UnknownProduct;

impl FromStr for Product {
    type Err = UnknownProduct;

    fn from_str(name: &str) -> Result<Self, UnknownProduct> {
        let mut all = Self::ALL.into_iter().chain(Self::PLAIN);
        all.find(|product| product.name() == name)
            .ok_or(UnknownProduct)
    }
}
