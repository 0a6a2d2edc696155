//! What a driver demands of the functions that it drives, and what it is shown of one.

use alloc::boxed::Box;

use pci::Claim;
use vdpa::Features;

use super::function::VirtioFunction;
use super::states::StateRegisters;
use super::window::Window;

/// What a driver demands of the functions that it drives.
pub(crate) struct Demands {
    /// What they are.
    pub(crate) device_type: u32,
    /// What they must offer, and what their driver must accept.
    pub(crate) features: Features,
    /// Where their virtio structures may lie.
    pub(crate) bars: &'static [u8],
    /// Finds what they may have beside the registers of virtio.
    pub(crate) states: fn(&Shown<'_>, row: u64) -> Option<Box<dyn StateRegisters>>,
    /// What it is told: [`driver_data`](pci::PciId::driver_data).
    pub(crate) row: u64,
}

/// A function in which a driver may look for more than the registers of virtio.
pub(crate) struct Shown<'a> {
    pub(super) claim: &'a Claim,
    pub(super) virtio: &'a VirtioFunction,
    pub(crate) device_type: u32,
    pub(crate) queues: usize,
}

impl Shown<'_> {
    /// The first `len` bytes of a BAR; `None`, if they are not there or something else is known to
    /// lie in them.
    pub(crate) fn registers_of_its_own(&self, bar: u8, len: u64) -> Option<Window> {
        let bytes = 0..len;
        let msix = self.claim.msix().ok()?;
        let taken = self.virtio.layout.touches(bar, &bytes)
            || msix.is_some_and(|msix| msix.touches(bar, &bytes));
        let inside = len <= self.claim.memory_bar(bar).ok()?.size;
        (inside && !taken)
            .then(|| Window::of_bar(self.claim, bar, bytes).ok())
            .flatten()
    }
}
