//! Which device a node of the device tree stands for, by its name.

/// A device that tables name, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A PCI function: its segment (upper half), and bus, device and function.
    Pci(u32),
    /// A virtio device by the address of its registers.
    VirtioMmio(u64),
}

/// What a node's name says.
pub(crate) fn place(name: &str) -> Option<Place> {
    if let Some(base) = name.strip_prefix("virtio_mmio.") {
        return number(base, u64::MAX).map(Place::VirtioMmio);
    }
    let address = name.strip_prefix("pci")?;
    let (segment, rest) = address.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let segment = number(segment, 0xffff)?;
    let bus = number(bus, 0xff)?;
    let (device, function) = (number(device, 31)?, number(function, 7)?);
    let id = segment << 16 | bus << 8 | device << 3 | function;
    u32::try_from(id).ok().map(Place::Pci)
}

/// A hexadecimal number without a sign.
fn number(text: &str, max: u64) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(text, 16).ok()?;
    (number <= max).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_virtio_devices_in_memory_have_a_place() {
        assert_eq!(place("pci0000:00:04.0"), Some(Place::Pci(0x20)));
        assert_eq!(place("pci0001:5e:1f.7"), Some(Place::Pci(0x1_5eff)));
        assert_eq!(
            place("virtio_mmio.feb00e00"),
            Some(Place::VirtioMmio(0xfeb0_0e00))
        );
    }

    #[test]
    fn nothing_else_has_one() {
        for name in [
            "machine",
            "vdpa0",
            "pci",
            "pci0000:00:04",
            "pci0000:00:20.0",
            "pci0000:00:04.8",
            "pci0000:100:04.0",
            "pci10000:00:04.0",
            "pci0000:+0:04.0",
            "pci0000::04.0",
            "virtio_mmio.",
            "virtio_mmio.xyz",
        ] {
            assert_eq!(place(name), None, "{name}");
        }
    }
}
