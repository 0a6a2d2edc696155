//! The IOMMU as a PCI function: its capability, and the interrupt of its event log.

use vdpa::platform::InterruptMessage;

// AMD 48882, 3.2: bits of the capability's header.
const CAPABILITY_ID: u32 = 0x0f;
const CAPABILITY_TYPE: u32 = 0b011 << 16;
const CAPABILITY_MASK: u32 = 0x0007_00ff;
const NP_CACHE: u32 = 1 << 26;
const EFR_SUP: u32 = 1 << 27;

// PCI Local Bus 3.0, 6.1 to 6.8.
const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;
const CAPABILITIES: u16 = 0x34;
const MSI: u32 = 0x05;
const MSI_ENABLE: u32 = 1 << 16;
const MSI_SEVERAL: u32 = 0b111 << 20;
const MSI_64_BIT: u32 = 1 << 23;
/// No configuration space has more.
const MOST_CAPABILITIES: usize = 48;

/// The configuration space of an IOMMU's own PCI function.
pub trait ConfigSpace {
    /// Reads four bytes; the offset is aligned.
    fn read(&self, offset: u16) -> u32;

    /// Writes four bytes; the offset is aligned.
    ///
    /// # Safety
    /// What the function does for it touches no memory but what is lent to it.
    unsafe fn write(&self, offset: u16, value: u32);
}

/// What the capability says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability(u32);

impl Capability {
    /// That at the offset. `None`, if it is another one.
    pub(super) fn read(config: &dyn ConfigSpace, offset: u16) -> Option<Self> {
        let header = config.read(offset & !0b11);
        (header & CAPABILITY_MASK == CAPABILITY_ID | CAPABILITY_TYPE).then_some(Self(header))
    }

    pub(super) const fn remembers_absence(self) -> bool {
        self.0 & NP_CACHE != 0
    }

    pub(super) const fn has_extended_features(self) -> bool {
        self.0 & EFR_SUP != 0
    }
}

/// Lets the function send its interrupts. False, if it cannot.
pub(super) fn enable_msi(config: &dyn ConfigSpace, message: InterruptMessage) -> bool {
    let mut at = config.read(CAPABILITIES) as u16 & 0xfc;
    for _ in 0..MOST_CAPABILITIES {
        if at == 0 {
            break;
        }
        let header = config.read(at);
        if header & 0xff == MSI {
            set_message(config, at, header, message);
            return true;
        }
        at = (header >> 8) as u16 & 0xfc;
    }
    false
}

fn set_message(config: &dyn ConfigSpace, at: u16, header: u32, message: InterruptMessage) {
    let write = |offset, value| {
        // SAFETY: the function writes to memory what its registers say, and here it is told to
        // raise an interrupt with the message of one.
        unsafe { config.write(offset, value) };
    };
    write(at + 4, message.address as u32);
    if header & MSI_64_BIT == 0 {
        write(at + 8, message.data);
    } else {
        write(at + 8, (message.address >> 32) as u32);
        write(at + 12, message.data);
    }
    write(at, header & !MSI_SEVERAL | MSI_ENABLE);
    // The upper half, the status, is cleared by ones.
    let command = config.read(COMMAND) & 0xffff;
    write(COMMAND, command | BUS_MASTER);
}
