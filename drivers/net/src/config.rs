//! What an interface's configuration space says (VIRTIO 1.2, 5.1.4), checked.

use alloc::string::String;
use core::fmt;

use vdpa::config::{Field, Value, net};
use vdpa::ops::OpError;
use vdpa::{Features, MacAddress, Node};
use virtio::le16;
use virtio::net::{F, S};
use virtio_bus::VirtioDevice;

/// The IP MTU of a device that does not say.
const MTU_DEFAULT: u16 = 1500;
/// The smallest IP MTU that a device may have (VIRTIO 1.2, 5.1.4.1).
const MTU_MIN: u16 = 68;

/// Whether the interface is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Frames get through.
    Up,
    /// They do not.
    Down,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// The address that the device offers, or one that stays the same for the device's place in the
/// tree.
pub(super) fn read_mac(device: &VirtioDevice, features: Features) -> Result<MacAddress, OpError> {
    if let Some(mac) = offered_mac(device, features)? {
        return Ok(mac);
    }
    if features.contains(F::MAC) {
        log::warn!("{}: its address is none for an interface", path(device));
    }
    Ok(derived_from(&path(device)))
}

/// A locally administered address that is always the same for the same text.
fn derived_from(text: &str) -> MacAddress {
    // FNV-1a, 64 bits.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    MacAddress([0x02, a, b, c, d, e])
}

/// The address that the device offers, if an interface can have it.
pub(super) fn offered_mac(
    device: &VirtioDevice,
    features: Features,
) -> Result<Option<MacAddress>, OpError> {
    if !features.contains(F::MAC) {
        return Ok(None);
    }
    let mac = MacAddress(read(device, &net::MAC)?);
    Ok(Some(mac).filter(|mac| mac.is_unicast()))
}

/// The longest IP packet in bytes. A device that says less than there can be is not believed, as in
/// Linux.
pub(super) fn read_mtu(device: &VirtioDevice, features: Features) -> Result<u16, OpError> {
    if !features.contains(F::MTU) {
        return Ok(MTU_DEFAULT);
    }
    let mtu = read(device, &net::MTU)?;
    if mtu < MTU_MIN {
        log::warn!(
            "{}: an MTU of {mtu} is none; {MTU_DEFAULT} instead",
            path(device)
        );
        return Ok(MTU_DEFAULT);
    }
    Ok(mtu)
}

/// The state of the link; a device that cannot tell is always connected.
pub(super) fn read_link(device: &VirtioDevice, features: Features) -> Result<Link, OpError> {
    if !features.contains(F::STATUS) {
        return Ok(Link::Up);
    }
    let status = S::from_bits_retain(le16::from_ne(read(device, &net::STATUS)?));
    Ok(if status.contains(S::LINK_UP) {
        Link::Up
    } else {
        Link::Down
    })
}

fn read<T: Value>(device: &VirtioDevice, field: &Field<T>) -> Result<T, OpError> {
    field.read(|at, bytes| device.read_config(at, bytes))
}

fn path(device: &VirtioDevice) -> String {
    Node::path(device.node())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_addresses_are_stable_local_and_differ() {
        let mac = derived_from("pci0000:00:04.0 -> vdpa0 -> virtio0");
        assert_eq!(mac, derived_from("pci0000:00:04.0 -> vdpa0 -> virtio0"));
        assert_ne!(mac, derived_from("pci0000:00:05.0 -> vdpa1 -> virtio1"));
        assert!(mac.is_unicast());
        assert_eq!(mac.0[0], 2, "locally administered");
    }
}
