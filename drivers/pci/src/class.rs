//! What a function is, by its class code (PCI Code and ID Assignment Specification, 1).

/// The name of a class code of three bytes, whatever its programming interface.
pub(crate) fn name(class: u32) -> Option<&'static str> {
    Some(match class >> 8 {
        0x0101 => "IDE controller",
        0x0106 => "SATA controller",
        0x0108 => "NVMe controller",
        0x0200 => "network controller",
        0x0300 => "display controller",
        0x0600 => "host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0680 => "bridge",
        0x0c03 => "USB controller",
        0x0c05 => "SMBus controller",
        _ => return None,
    })
}
