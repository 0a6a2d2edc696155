//! The first 64 bytes of configuration space: who a function is.
//!
//! Source: PCI Local Bus 3.0, 6.1 and 6.2.1.

use pci_types::HeaderType;

use super::access::{ABSENT, ConfigSpace};

const HEADER_TYPE: u16 = 0x0e;
const MULTI_FUNCTION: u8 = 0x80;

/// Class and subclass of a host bridge.
const HOST_BRIDGE: u32 = 0x0600;

/// What identifies a function to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who made the function.
    pub vendor: u16,
    /// Which of the vendor's devices it is.
    pub device: u16,
    /// Who made the card; 0 where the header has no such field.
    pub subvendor: u16,
    /// Which card it is; 0 where the header has no such field.
    pub subdevice: u16,
    /// Base class, subclass and programming interface, eight bits each.
    pub class: u32,
    /// The revision.
    pub revision: u8,
}

impl Identity {
    /// Reads who the function is; `None` if nobody answers.
    #[must_use]
    pub fn read(config: &ConfigSpace) -> Option<Self> {
        let vendor = config.read16(0x00);
        if vendor == ABSENT || vendor == 0 {
            return None;
        }
        Some(Self::read_as(config, vendor, config.read16(0x02)))
    }

    /// Reads who a function is that does not say whose device it is: a virtual one.
    pub(super) fn read_as(config: &ConfigSpace, vendor: u16, device: u16) -> Self {
        let (subvendor, subdevice) = match kind(config) {
            HeaderType::Endpoint => (config.read16(0x2c), config.read16(0x2e)),
            HeaderType::CardBusBridge => (config.read16(0x42), config.read16(0x40)),
            _ => (0, 0),
        };
        let [revision, ..] = config.read32(0x08).to_le_bytes();
        let class = config.read32(0x08) >> 8;
        Self {
            vendor,
            device,
            subvendor,
            subdevice,
            class,
            revision,
        }
    }

    /// Whether the function is the host's side of the bus.
    pub(super) fn is_host_bridge(&self) -> bool {
        self.class >> 8 == HOST_BRIDGE
    }
}

/// The layout of the header.
pub(super) fn kind(config: &ConfigSpace) -> HeaderType {
    match config.read8(HEADER_TYPE) & !MULTI_FUNCTION {
        0 => HeaderType::Endpoint,
        1 => HeaderType::PciPciBridge,
        2 => HeaderType::CardBusBridge,
        other => HeaderType::Unknown(other),
    }
}

/// Whether functions 1 to 7 of the device may exist.
pub(super) fn is_multi_function(config: &ConfigSpace) -> bool {
    config.read8(HEADER_TYPE) & MULTI_FUNCTION != 0
}
