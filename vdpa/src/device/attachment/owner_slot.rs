//! Whether somebody has a device, and what happens to what he has mapped when he leaves.

use alloc::sync::Arc;

use spin::Mutex;

use crate::dma::Owner;
use crate::ops::{Abilities, DmaModel};

use super::super::VdpaDevice;
use super::AttachError;
use super::lease::Lease;

/// The device's end of an attachment.
#[derive(Debug, Default)]
pub(in crate::device) struct OwnerSlot(Mutex<Option<Arc<Lease>>>);

impl OwnerSlot {
    pub(super) fn owner(&self) -> Option<Owner> {
        self.0.lock().as_ref().map(|lease| lease.owner())
    }

    /// By what the device is let, if it is.
    pub(super) fn lease(&self) -> Option<Arc<Lease>> {
        self.0.lock().clone()
    }

    /// Lets the device to somebody, unless somebody has it.
    pub(super) fn begin(
        &self,
        device: &VdpaDevice,
        lease: impl FnOnce() -> Result<Lease, AttachError>,
    ) -> Result<Arc<Lease>, AttachError> {
        let mut tenant = self.0.lock();
        let mut forgotten = None;
        if let Some(lease) = &*tenant {
            if !lease.is_orphaned() || !device.is_at_rest() {
                return Err(AttachError::Taken(lease.owner()));
            }
            forgotten = lease.end(device);
            *tenant = None;
        }
        let lease = lease().map(Arc::new);
        if let Ok(lease) = &lease {
            *tenant = Some(Arc::clone(lease));
        }
        drop(tenant);
        drop(forgotten);
        lease
    }

    /// Ends a lease, if the device is let by it. The device uses no memory.
    pub(super) fn end(&self, device: &VdpaDevice, lease: &Arc<Lease>) {
        let mut tenant = self.0.lock();
        if !tenant.as_ref().is_some_and(|now| Arc::ptr_eq(now, lease)) {
            return;
        }
        // With the lock held, so that nobody gets the device before it has forgotten everything.
        let forgotten = lease.end(device);
        *tenant = None;
        drop(tenant);
        drop(forgotten);
    }

    /// The driver has let go, and with it who has attached through its claim: nothing more can be
    /// mapped, and what is mapped goes at the next reset or with the next owner.
    pub(in crate::device) fn evict(&self) {
        if let Some(lease) = self.lease() {
            lease.orphan();
        }
    }

    /// The device has been reset, or is gone: it uses no memory.
    pub(in crate::device) fn at_rest(&self, device: &VdpaDevice) {
        let Some(lease) = self.lease() else {
            return;
        };
        lease.set_abandoned(false);
        drop(lease.take_log());
        let translates = !matches!(device.ops.dma_model(), DmaModel::Platform);
        if lease.is_orphaned() {
            self.end(device, &lease);
        } else if translates && !device.abilities().contains(Abilities::PERSISTENT_MAPS) {
            drop(lease.forget());
        }
    }

    /// The device did not come out of a reset, and nobody will try again: it may go on using
    /// whatever it can reach.
    pub(in crate::device) fn abandon(&self) {
        if let Some(lease) = &*self.0.lock() {
            lease.set_abandoned(true);
        }
    }
}
