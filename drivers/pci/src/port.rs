//! Configuration access through the ports 0xCF8 and 0xCFC: 256 bytes of each function of segment 0.
//!
//! Source: PCI Local Bus 3.0, 3.2.2.3.2 ("configuration mechanism").

use core::fmt::Debug;
use core::ops::RangeInclusive;

use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;

use super::access::ConfigAccess;

/// Bit of the index that turns the access into a configuration cycle.
const ENABLE: u32 = 1 << 31;
/// What the mechanism reaches of a function.
const FUNCTION_SIZE: u16 = 256;

/// The pair of ports, so that a test can stand in for them.
pub trait ConfigPorts: Debug + Send + Sync {
    /// Writes the index port, 0xCF8.
    fn select(&self, index: u32);
    /// Reads the data port, 0xCFC.
    fn read(&self) -> u32;
    /// Writes the data port, 0xCFC.
    fn write(&self, value: u32);
    /// Writes half of the data port: the low half at 0xCFC (`half` is 0), or the high one at 0xCFE
    /// (`half` is 2).
    fn write16(&self, half: u16, value: u16);
}

/// Configuration access through an index port and a data port.
///
/// The lock keeps index and data together. It is an ordinary spin lock: an interrupt handler must
/// not use configuration space.
#[derive(Debug)]
pub struct PortConfig<P> {
    ports: Mutex<P>,
}

impl<P: ConfigPorts> PortConfig<P> {
    /// Access through `ports`.
    #[must_use]
    pub const fn new(ports: P) -> Self {
        Self {
            ports: Mutex::new(ports),
        }
    }
}

impl<P: ConfigPorts> ConfigAccess for PortConfig<P> {
    fn segment(&self) -> u16 {
        0
    }

    fn buses(&self) -> RangeInclusive<u8> {
        0..=u8::MAX
    }

    fn function_size(&self) -> u16 {
        FUNCTION_SIZE
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        if let Some(index) = index(address, offset) {
            let ports = self.ports.lock();
            ports.select(index);
            ports.write16(offset & 2, value);
        }
    }
}

impl<P: ConfigPorts> ConfigRegionAccess for PortConfig<P> {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let Some(index) = index(address, offset) else {
            return u32::MAX;
        };
        let ports = self.ports.lock();
        ports.select(index);
        ports.read()
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        let Some(index) = index(address, offset) else {
            return;
        };
        let ports = self.ports.lock();
        ports.select(index);
        ports.write(value);
    }
}

/// What to write to the index port; `None` if the mechanism does not reach there.
fn index(address: PciAddress, offset: u16) -> Option<u32> {
    let reachable = address.segment() == 0 && offset < FUNCTION_SIZE;
    reachable.then(|| {
        ENABLE
            | (u32::from(address.bus()) << 16)
            | (u32::from(address.device()) << 11)
            | (u32::from(address.function()) << 8)
            | u32::from(offset & !3)
    })
}

#[cfg(target_arch = "x86_64")]
pub use x86::X86Ports;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use x86_64::instructions::port::Port;

    use super::ConfigPorts;

    const INDEX: u16 = 0xcf8;
    const DATA: u16 = 0xcfc;

    /// The ports of a PC.
    #[derive(Debug)]
    pub struct X86Ports(());

    impl X86Ports {
        /// Takes the ports.
        ///
        /// # Safety
        /// The processor must be allowed to use the ports 0xCF8 and 0xCFC, they must be those of a
        /// PCI host bridge, and nothing else may use them.
        #[must_use]
        pub const unsafe fn take() -> Self {
            Self(())
        }
    }

    impl ConfigPorts for X86Ports {
        fn select(&self, index: u32) {
            let mut port = Port::new(INDEX);
            // SAFETY: `take` vouches for the port; selecting a register changes nothing else.
            unsafe { port.write(index) }
        }

        fn read(&self) -> u32 {
            let mut port = Port::new(DATA);
            // SAFETY: `take` vouches for the port.
            unsafe { port.read() }
        }

        fn write(&self, value: u32) {
            let mut port = Port::new(DATA);
            // SAFETY: `take` vouches for the port, and `ConfigSpace` for what is written.
            unsafe { port.write(value) }
        }

        fn write16(&self, half: u16, value: u16) {
            let mut port = Port::new(DATA + (half & 2));
            // SAFETY: as for `write`.
            unsafe { port.write(value) }
        }
    }
}
