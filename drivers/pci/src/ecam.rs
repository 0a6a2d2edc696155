//! Configuration access through memory: all 4096 bytes of each function of one segment.
//!
//! Source: PCI Express Base 6.0, 7.2.2; PCI Firmware 3.3, 4.1.2 (table MCFG).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;
use vdpa::Platform;
use vdpa::platform::{Mmio, PhysAddr};

use super::access::ConfigAccess;

/// The window of one bus: 32 devices of 8 functions of 4096 bytes.
const BUS_SIZE: u64 = 1 << 20;
const FUNCTION_SIZE: u16 = 4096;

/// One entry of the ACPI table MCFG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcamRegion {
    /// Where bus 0 of the segment would be, whether or not it is in `buses`.
    pub base: PhysAddr,
    /// The PCI segment.
    pub segment: u16,
    /// The buses that the region holds.
    pub buses: RangeInclusive<u8>,
}

/// What a bus is reached through, if it can be.
type Window = Option<Arc<dyn Mmio>>;

/// Configuration access through the memory window that firmware describes.
///
/// A bus is mapped when it is first used: a machine has room for 256 buses and a handful of them.
pub struct Ecam {
    platform: Arc<dyn Platform>,
    region: EcamRegion,
    mapped: Mutex<Vec<(u8, Window)>>,
}

impl Ecam {
    /// Access to the functions of `region`.
    ///
    /// # Safety
    /// The region is configuration space, and nobody else reaches it.
    #[must_use]
    pub unsafe fn new(platform: Arc<dyn Platform>, region: EcamRegion) -> Self {
        Self {
            platform,
            region,
            mapped: Mutex::new(Vec::new()),
        }
    }

    /// The window of a bus; `None` if it is not in the region or cannot be mapped.
    fn window(&self, bus: u8) -> Option<Arc<dyn Mmio>> {
        if !self.region.buses.contains(&bus) {
            return None;
        }
        let mut mapped = self.mapped.lock();
        if let Some((_, window)) = mapped.iter().find(|(of, _)| *of == bus) {
            return window.clone();
        }
        let base = self.region.base.0.checked_add(u64::from(bus) * BUS_SIZE)?;
        // SAFETY: the region is configuration space, as the creator has promised.
        let window = unsafe { self.platform.map_mmio(PhysAddr(base), BUS_SIZE) };
        // Where one is wrong, most are.
        if let Err(error) = &window
            && mapped.iter().all(|(_, window)| window.is_some())
        {
            log::warn!("pci: bus {bus:02x} at {base:#x}: {error}");
        }
        let window = window.ok();
        mapped.push((bus, window.clone()));
        window
    }
}

impl ConfigAccess for Ecam {
    fn segment(&self) -> u16 {
        self.region.segment
    }

    fn buses(&self) -> RangeInclusive<u8> {
        self.region.buses.clone()
    }

    fn function_size(&self) -> u16 {
        FUNCTION_SIZE
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        if let Some(bus) = self.window(address.bus()) {
            let at = position(address, offset) | u64::from(offset & 2);
            // SAFETY: the caller vouches for what the function does for it.
            unsafe { bus.write16(at, value) };
        }
    }
}

impl ConfigRegionAccess for Ecam {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        self.window(address.bus())
            .map_or(u32::MAX, |bus| bus.read32(position(address, offset)))
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        if let Some(bus) = self.window(address.bus()) {
            // SAFETY: the caller vouches for what the function does for it.
            unsafe { bus.write32(position(address, offset), value) };
        }
    }
}

/// Where a register lies in the window of its bus.
fn position(address: PciAddress, offset: u16) -> u64 {
    (u64::from(address.device()) << 15)
        | (u64::from(address.function()) << 12)
        | u64::from(offset & (FUNCTION_SIZE - 4))
}

impl fmt::Debug for Ecam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ecam")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}
