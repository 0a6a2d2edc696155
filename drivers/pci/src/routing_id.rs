//! The routing id: bus, device and function as the packets of a function carry them.
//!
//! Source: PCI Express Base 6.0, 2.2.6.2.

use pci_types::PciAddress;

/// The routing id of the function at an address.
pub(crate) fn routing_id(address: PciAddress) -> u16 {
    u16::from(address.bus()) << 8 | u16::from(address.device()) << 3 | u16::from(address.function())
}

/// Where the function of a routing id is.
#[must_use]
pub fn function_address(segment: u16, routing_id: u16) -> PciAddress {
    let [bus, rest] = routing_id.to_be_bytes();
    PciAddress::new(segment, bus, rest >> 3, rest & 0b111)
}
