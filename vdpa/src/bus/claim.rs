//! The ownership of a device that a bind gives to its driver, and that ends with the bind.

use alloc::sync::Arc;
use core::fmt::{self, Debug};
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};

use super::BusDevice;

/// A device that belongs to one driver: what a bus gives to [`probe`](super::Driver::probe).
///
/// There is at most one valid claim of a device. It ends when the driver has let go, when its probe
/// fails and when the device is removed; a driver that keeps the value has no more than a reference
/// then. What changes a device asks for its claim, so a reference to the device (as by
/// [`Bus::devices`](super::Bus::devices)) is good for looking alone.
///
/// Nobody but a bus can make one:
///
/// ```compile_fail,E0451
/// # use std::sync::Arc;
/// # use vdpa::{bus::Claim, device::VdpaDevice};
/// fn attack(device: Arc<VdpaDevice>) -> Claim<VdpaDevice> {
///     Claim { device, valid: Arc::default() }
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use vdpa::{bus::Claim, device::VdpaDevice};
/// fn attack(claim: &Claim<VdpaDevice>) -> Claim<VdpaDevice> {
///     claim.clone()
/// }
/// ```
pub struct Claim<D> {
    device: Arc<D>,
    valid: Arc<AtomicBool>,
}

/// The bus's end of a claim.
pub(super) struct ClaimEnd(Arc<AtomicBool>);

impl<D: BusDevice> Claim<D> {
    /// A claim that is valid until its end is dropped.
    pub(super) fn new(device: &Arc<D>) -> (Self, ClaimEnd) {
        let valid = Arc::new(AtomicBool::new(true));
        let claim = Self {
            device: Arc::clone(device),
            valid: Arc::clone(&valid),
        };
        (claim, ClaimEnd(valid))
    }

    /// Whether the device still belongs to the driver.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Acquire)
    }
}

impl Drop for ClaimEnd {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<D> Deref for Claim<D> {
    type Target = Arc<D>;

    fn deref(&self) -> &Arc<D> {
        &self.device
    }
}

impl<D: Debug> Debug for Claim<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("device", &self.device)
            .field("valid", &self.valid)
            .finish()
    }
}

/// Proof that a bus calls, for what only the bus of a device may ask of it.
///
/// ```compile_fail,E0061
/// # use vdpa::{bus::BusDevice, device::VdpaDevice};
/// async fn attack(device: &VdpaDevice) {
///     device.quiesce().await
/// }
/// ```
///
/// ```compile_fail,E0423
/// # use vdpa::{bus::{BusDevice, ByBus}, device::VdpaDevice};
/// async fn attack(device: &VdpaDevice) {
///     device.quiesce(ByBus(std::marker::PhantomData)).await
/// }
/// ```
pub struct ByBus<D: ?Sized>(PhantomData<fn(&D)>);

impl<D: ?Sized> ByBus<D> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D: ?Sized> Debug for ByBus<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByBus")
    }
}
