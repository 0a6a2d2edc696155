//! Binding a device to a driver and taking it away again, step by step.
//!
//! Binding: probe. Unbinding: the driver lets go, the device comes to rest.
//!
//! The sequences are boxed, so that a bus has each of them once and not in all that wait for them.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::platform::BoxFuture;

use super::matching::{Candidate, Matched, candidates, matched};
use super::slot::{Change, Holder, Slot};
use super::{Bus, BusDevice, ByBus, Claim, Driver, ProbeError};

impl<D: BusDevice> Bus<D> {
    /// Offers the device to every driver that matches, best first, until one claims it.
    pub(super) fn find_driver<'a>(&'a self, slot: &'a Slot<D>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let drivers = self.members.lock().drivers.clone();
            let override_name = slot.override_name();
            for candidate in candidates(&*slot.device, override_name.as_deref(), &drivers) {
                self.bind(slot, candidate).await;
            }
        })
    }

    /// Offers the device to one driver, if it matches.
    pub(super) async fn offer(&self, slot: &Slot<D>, driver: &Arc<dyn Driver<D>>) {
        let override_name = slot.override_name();
        if let Some(matched) = matched(&*slot.device, override_name.as_deref(), driver.as_ref()) {
            let driver = Arc::clone(driver);
            self.bind(slot, Candidate { driver, matched }).await;
        }
    }

    /// Takes the device from its driver unless the override allows it, and looks for another.
    pub(super) async fn rebind(&self, slot: &Slot<D>) {
        let override_name = slot.override_name();
        let unwanted = |driver: &Arc<dyn Driver<D>>| {
            override_name
                .as_deref()
                .is_some_and(|name| name != driver.name())
        };
        Self::unbind(slot, &unwanted).await;
        self.find_driver(slot).await;
    }

    /// Takes the device from this driver.
    pub(super) async fn unbind_from(&self, slot: &Slot<D>, driver: &Arc<dyn Driver<D>>) {
        Self::unbind(slot, &|holder| Arc::ptr_eq(holder, driver)).await;
    }

    /// The first half of a removal: no driver can claim the device any more, and none holds it.
    pub(super) fn evict(slot: &Slot<D>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            slot.leave();
            if let Some((change, holder)) = slot.seize().await {
                // Also if no driver of the bus has had it: somebody may have used it directly.
                change.cleanup(|cleanup| cleanup.to_reset = true);
                let_go(slot, &change, holder).await;
            }
        })
    }

    /// The second half of a removal: the device is no longer on the bus, nor in the tree.
    pub(super) fn forget(&self, slot: &Arc<Slot<D>>) {
        let mut members = self.members.lock();
        members.devices.retain(|other| !Arc::ptr_eq(other, slot));
        drop(members);
        slot.leave_tree();
    }

    /// Lets one driver try, if the device is still free and the driver still registered then.
    fn bind<'a>(&'a self, slot: &'a Slot<D>, candidate: Candidate<D>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let driver = &candidate.driver;
            // Asked with the device's state locked: a driver that is removed later finds the claim.
            let registered = || {
                self.members
                    .lock()
                    .drivers
                    .iter()
                    .any(|other| Arc::ptr_eq(other, driver))
            };
            let Some(change) = slot.claim(&registered).await else {
                return;
            };
            match try_bind(slot, &change, &candidate).await {
                Ok(holder) => change.bound(holder),
                Err(error) => {
                    let (device, name) = (slot.device.node().path(), driver.name());
                    log::warn!("{device}: {name} does not take it: {error}");
                }
            }
        })
    }

    fn unbind<'a>(
        slot: &'a Slot<D>,
        wanted: &'a (dyn Fn(&Arc<dyn Driver<D>>) -> bool + Sync),
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some((change, holder)) = slot.release(wanted).await {
                let_go(slot, &change, Some(holder)).await;
            }
        })
    }
}

/// Probe; if it fails, the device comes to rest again.
async fn try_bind<D: BusDevice>(
    slot: &Slot<D>,
    change: &Change<'_, D>,
    candidate: &Candidate<D>,
) -> Result<Holder<D>, ProbeError> {
    let driver = &candidate.driver;
    // An earlier attempt may have been dropped half-way.
    come_to_rest(slot, change).await;
    let id = Matched::row(candidate.matched, driver.as_ref());
    match driver.probe(claim(slot, change), id).await {
        Ok(bound) => Ok(Holder::new(Arc::clone(driver), bound)),
        Err(error) => {
            come_to_rest(slot, change).await;
            Err(error)
        }
    }
}

/// The driver lets go, and the device comes to rest.
async fn let_go<D: BusDevice>(slot: &Slot<D>, change: &Change<'_, D>, holder: Option<Holder<D>>) {
    if let Some(holder) = holder {
        holder.bound.remove().await;
    }
    come_to_rest(slot, change).await;
}

/// The device for a driver, until it [comes to rest](come_to_rest).
pub(super) fn claim<D: BusDevice>(slot: &Slot<D>, change: &Change<'_, D>) -> Claim<D> {
    let (claim, end) = Claim::new(&slot.device);
    change.cleanup(|cleanup| {
        cleanup.to_reset = true;
        cleanup.claim = Some(end);
    });
    claim
}

pub(super) fn come_to_rest<'a, D: BusDevice>(
    slot: &'a Slot<D>,
    change: &'a Change<'a, D>,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        drop(change.cleanup(|cleanup| cleanup.claim.take()));
        if change.cleanup(|cleanup| cleanup.to_reset) {
            slot.device.quiesce(ByBus::new()).await;
            change.cleanup(|cleanup| cleanup.to_reset = false);
        }
    })
}
