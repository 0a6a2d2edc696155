//! Handing a binding over while its device works: no driver lets go and none probes.
//!
//! The two halves can be nested, and then move a binding from one device of a bus to another. The
//! half that gives up is the outer one: the inner one waits for nobody, so that two moves do not
//! wait for each other.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::platform::BoxFuture;

use super::binding::{claim, come_to_rest};
use super::slot::Holder;
use super::{Bound, Bus, BusDevice, Claim};

/// A binding was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryError<E> {
    /// There is no such binding, no such driver, or the device is not free.
    NotThere,
    /// What carries it over has failed.
    Carry(E),
}

impl<D: BusDevice> Bus<D> {
    /// Takes a device from the driver of this name, which has been made to work elsewhere by
    /// `carry`. The device comes to rest and has no driver afterwards. If `carry` fails, nothing
    /// changes.
    ///
    /// # Errors
    /// [`CarryError`].
    pub async fn give_up<E>(
        &self,
        device: &Arc<D>,
        driver: &str,
        carry: BoxFuture<'_, Result<(), E>>,
    ) -> Result<(), CarryError<E>> {
        let slot = self.slot(device).ok_or(CarryError::NotThere)?;
        let held = slot.release(&|holder| holder.name() == driver).await;
        let (change, holder) = held.ok_or(CarryError::NotThere)?;
        if let Err(error) = carry.await {
            change.bound(holder);
            return Err(CarryError::Carry(error));
        }
        // What it was bound by is at work elsewhere.
        drop(holder);
        come_to_rest(&slot, &change).await;
        Ok(())
    }

    /// Gives a device without a driver to the one of this name, without a probe: `carry` gets the
    /// claim and makes the binding. If it fails, the device comes to rest and has no driver. An
    /// override is not asked.
    ///
    /// # Errors
    /// [`CarryError`].
    pub async fn adopt<E, F: Future<Output = Result<Box<dyn Bound>, E>>>(
        &self,
        device: &Arc<D>,
        driver: &str,
        carry: impl FnOnce(Claim<D>) -> F,
    ) -> Result<(), CarryError<E>> {
        let slot = self.slot(device).ok_or(CarryError::NotThere)?;
        let change = slot.claim_now().ok_or(CarryError::NotThere)?;
        let driver = {
            let members = self.members.lock();
            let mut drivers = members.drivers.iter();
            drivers.find(|other| other.name() == driver).cloned()
        };
        let driver = driver.ok_or(CarryError::NotThere)?;
        // An earlier attempt may have been dropped half-way.
        come_to_rest(&slot, &change).await;
        match carry(claim(&slot, &change)).await {
            Ok(bound) => {
                change.bound(Holder::new(driver, bound));
                Ok(())
            }
            Err(error) => {
                come_to_rest(&slot, &change).await;
                Err(CarryError::Carry(error))
            }
        }
    }
}
