//! The capability lists of a function, walked so that a malformed one cannot hold us up.
//!
//! Source: PCI Local Bus 3.0, 6.7; PCI Express Base 6.0, 7.6 and 7.5.3.

use alloc::vec::Vec;

use pci_types::HeaderType;

use super::access::ConfigSpace;
use super::header;

/// Capability id of a vendor's own structure; virtio's are of this kind.
pub const VENDOR_SPECIFIC: u8 = 0x09;
/// Capability id of PCI Express.
pub const PCI_EXPRESS: u8 = 0x10;
/// Capability id of MSI-X.
pub const MSI_X: u8 = 0x11;

/// Status register, bit 4: there is a capability list.
const STATUS: u16 = 0x06;
const CAPABILITY_LIST: u16 = 1 << 4;
/// The standard header ends here, so no capability starts before.
const FIRST: u16 = 0x40;
/// The extended list starts here, where the first 256 bytes end.
const EXTENDED: u16 = 0x100;

/// One entry of the capability list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is.
    pub id: u8,
    /// Where it starts in configuration space.
    pub offset: u16,
}

/// One entry of the extended capability list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// What it is.
    pub id: u16,
    /// Where it starts in configuration space.
    pub offset: u16,
}

/// The capability list cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// An entry points back to one that was met before.
    #[error("the capability list loops")]
    Loop,
    /// An entry points into the header or beyond the end.
    #[error("the capability list leaves its place")]
    Misplaced,
}

/// The capabilities of a function, in the order of the list.
///
/// # Errors
/// [`CapabilityError`], if the list is malformed.
pub fn capabilities(config: &ConfigSpace) -> Result<Vec<Capability>, CapabilityError> {
    let mut list = Vec::new();
    if config.read16(STATUS) & CAPABILITY_LIST == 0 {
        return Ok(list);
    }
    let Some(head) = list_head(config) else {
        return Ok(list);
    };
    // The two lowest bits of a pointer are reserved and must be masked (PCI 3.0, 6.7).
    let mut offset = u16::from(config.read8(head) & !3);
    while offset != 0 {
        if offset < FIRST {
            return Err(CapabilityError::Misplaced);
        }
        if list.iter().any(|known: &Capability| known.offset == offset) {
            return Err(CapabilityError::Loop);
        }
        let [id, next, ..] = config.read32(offset).to_le_bytes();
        list.push(Capability { id, offset });
        offset = u16::from(next & !3);
    }
    Ok(list)
}

/// Where the first capability of this kind starts. A malformed list has none.
pub(super) fn find(config: &ConfigSpace, id: u8) -> Option<u16> {
    let list = capabilities(config).ok()?;
    let entry = list.iter().find(|entry| entry.id == id)?;
    Some(entry.offset)
}

/// As [`find`], in the extended list.
pub(super) fn find_extended(config: &ConfigSpace, id: u16) -> Option<u16> {
    let list = extended_capabilities(config).ok()?;
    let entry = list.iter().find(|entry| entry.id == id)?;
    Some(entry.offset)
}

/// Where the pointer to the first entry is; it depends on the kind of header.
fn list_head(config: &ConfigSpace) -> Option<u16> {
    match header::kind(config) {
        HeaderType::Endpoint | HeaderType::PciPciBridge => Some(0x34),
        HeaderType::CardBusBridge => Some(0x14),
        _ => None,
    }
}

/// The extended capabilities of a function; none where only 256 bytes can be reached.
///
/// # Errors
/// [`CapabilityError`], if the list is malformed.
pub fn extended_capabilities(
    config: &ConfigSpace,
) -> Result<Vec<ExtendedCapability>, CapabilityError> {
    let mut list = Vec::new();
    if config.size() <= EXTENDED {
        return Ok(list);
    }
    let mut offset = EXTENDED;
    loop {
        let header = config.read32(offset);
        // Nothing there: a null entry, or a conventional device whose extended space does not
        // answer.
        if header == 0 || header == u32::MAX {
            return Ok(list);
        }
        let [low, high, ..] = header.to_le_bytes();
        list.push(ExtendedCapability {
            id: u16::from_le_bytes([low, high]),
            offset,
        });
        offset = (config.read16(offset + 2) >> 4) & !3;
        if offset == 0 {
            return Ok(list);
        }
        if offset < EXTENDED {
            return Err(CapabilityError::Misplaced);
        }
        if list.iter().any(|known| known.offset == offset) {
            return Err(CapabilityError::Loop);
        }
    }
}
