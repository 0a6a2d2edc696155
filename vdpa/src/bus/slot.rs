//! A device's place on a bus: which driver holds it, and who may change that now.
//!
//! The state is under a short lock. While a driver is at work the state says `Changing`, and
//! other changes of it wait.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::mem;

use spin::Mutex;

use crate::platform::BoxFuture;
use crate::power::Managed;
#[cfg(feature = "suspend")]
use crate::power::PowerError;
use crate::wait::Waiters;

use super::claim::ClaimEnd;
use super::{Bound, BusDevice, Driver};

/// A device on a bus.
pub(super) struct Slot<D: BusDevice> {
    pub(super) device: Arc<D>,
    state: Mutex<State<D>>,
    settled: Waiters,
    /// Whom the power changes of the system reach; kept here because the tree must not own it.
    managed: Mutex<Option<Arc<dyn Managed>>>,
}

struct State<D: BusDevice> {
    binding: Binding<D>,
    override_name: Option<String>,
    /// No driver may claim the device any more.
    leaving: bool,
    /// What is left to do when the driver is gone.
    cleanup: PendingCleanup,
}

enum Binding<D: BusDevice> {
    Unbound,
    /// Somebody holds a [`Change`].
    Changing,
    Bound(Holder<D>),
}

/// A driver that has the device.
pub(super) struct Holder<D: BusDevice> {
    driver: Arc<dyn Driver<D>>,
    pub(super) bound: Box<dyn Bound>,
    #[cfg(feature = "suspend")]
    suspended: bool,
}

impl<D: BusDevice> Holder<D> {
    pub(super) fn new(driver: Arc<dyn Driver<D>>, bound: Box<dyn Bound>) -> Self {
        Self {
            driver,
            bound,
            #[cfg(feature = "suspend")]
            suspended: false,
        }
    }
}

/// What a driver leaves behind, even one whose future was dropped half-way.
#[derive(Default)]
pub(super) struct PendingCleanup {
    /// A driver has seen the device since it last came to rest.
    pub(super) to_reset: bool,
    /// The claim that a driver has been given.
    pub(super) claim: Option<ClaimEnd>,
}

/// The right to change the binding. Dropped without an outcome, also in the middle of an await, it
/// leaves the device unbound.
pub(super) struct Change<'a, D: BusDevice> {
    slot: &'a Slot<D>,
    outcome: Binding<D>,
}

impl<D: BusDevice> Change<'_, D> {
    /// Settles with the claim in place.
    pub(super) fn bound(mut self, holder: Holder<D>) {
        self.outcome = Binding::Bound(holder);
    }

    /// What the next one will have to clean up.
    pub(super) fn cleanup<T>(&self, look: impl FnOnce(&mut PendingCleanup) -> T) -> T {
        look(&mut self.slot.state.lock().cleanup)
    }
}

impl<D: BusDevice> Drop for Change<'_, D> {
    fn drop(&mut self) {
        let outcome = mem::replace(&mut self.outcome, Binding::Unbound);
        let driver = match &outcome {
            Binding::Bound(holder) => Some(holder.driver.name()),
            Binding::Unbound | Binding::Changing => None,
        };
        self.slot.device.node().set_driver(driver);
        self.slot.state.lock().binding = outcome;
        self.slot.settled.wake();
    }
}

impl<D: BusDevice> Slot<D> {
    pub(super) fn new(device: Arc<D>) -> Arc<Self> {
        let state = State {
            binding: Binding::Unbound,
            override_name: None,
            leaving: false,
            cleanup: PendingCleanup::default(),
        };
        Arc::new(Self {
            device,
            state: Mutex::new(state),
            settled: Waiters::default(),
            managed: Mutex::new(None),
        })
    }

    /// Takes part in the power changes of the system from now on. False, if the device does so
    /// already, on some bus.
    pub(super) fn join_tree(self: &Arc<Self>) -> bool {
        let managed: Arc<dyn Managed> = Arc::new(Power(Arc::downgrade(self)));
        let joined = self.device.node().manage(Arc::downgrade(&managed));
        if joined {
            *self.managed.lock() = Some(managed);
        }
        joined
    }

    /// Is no longer part of the system.
    pub(super) fn leave_tree(&self) {
        self.device.node().unmanage();
        self.device.node().detach();
        *self.managed.lock() = None;
    }

    /// Whether no driver has the device or is about to.
    pub(super) fn is_unbound(&self) -> bool {
        matches!(self.state.lock().binding, Binding::Unbound)
    }

    /// Name and alias, for people who look for a driver.
    pub(super) fn describe(&self) -> String {
        format!("{} {}", self.device.node().name(), self.device.alias())
    }

    pub(super) fn override_name(&self) -> Option<String> {
        self.state.lock().override_name.clone()
    }

    pub(super) fn set_override(&self, driver: Option<String>) {
        self.state.lock().override_name = driver;
    }

    /// No driver may claim the device any more.
    pub(super) fn leave(&self) {
        self.state.lock().leaving = true;
    }

    /// The right to bind the device, once nobody else is changing it. `None`, if it has a driver,
    /// is leaving, or `allowed` says no at the very moment of the claim.
    pub(super) async fn claim(&self, allowed: &(dyn Fn() -> bool + Sync)) -> Option<Change<'_, D>> {
        let free = |state: &State<D>| match state.binding {
            Binding::Unbound => !state.leaving && allowed(),
            Binding::Changing | Binding::Bound(_) => false,
        };
        self.change(&free).await.map(|(change, _)| change)
    }

    /// The right to bind the device, if it is free now. Nobody is waited for.
    pub(super) fn claim_now(&self) -> Option<Change<'_, D>> {
        let mut state = self.state.lock();
        if state.leaving || !matches!(state.binding, Binding::Unbound) {
            return None;
        }
        state.binding = Binding::Changing;
        Some(Change {
            slot: self,
            outcome: Binding::Unbound,
        })
    }

    /// The right to unbind the device and its driver's claim, once nobody else is changing it.
    /// `None`, if it has no driver, or one that is not `wanted`.
    pub(super) async fn release(
        &self,
        wanted: &(dyn Fn(&Arc<dyn Driver<D>>) -> bool + Sync),
    ) -> Option<(Change<'_, D>, Holder<D>)> {
        let held = |state: &State<D>| match &state.binding {
            Binding::Bound(holder) => wanted(&holder.driver),
            Binding::Changing | Binding::Unbound => false,
        };
        let (change, holder) = self.change(&held).await?;
        holder.map(|holder| (change, holder))
    }

    /// The right to change the device in whatever state it settles.
    pub(super) async fn seize(&self) -> Option<(Change<'_, D>, Option<Holder<D>>)> {
        self.change(&|_| true).await
    }

    /// Waits until nobody is changing the binding, and takes the right to if it is as `wanted`
    /// then. Conditions are not generic: each of them would be a copy of the future.
    async fn change(
        &self,
        wanted: &(dyn Fn(&State<D>) -> bool + Sync),
    ) -> Option<(Change<'_, D>, Option<Holder<D>>)> {
        let attempt = || {
            let mut state = self.state.lock();
            if matches!(state.binding, Binding::Changing) {
                return None;
            }
            if !wanted(&state) {
                return Some(None);
            }
            let change = Change {
                slot: self,
                outcome: Binding::Unbound,
            };
            match mem::replace(&mut state.binding, Binding::Changing) {
                Binding::Bound(holder) => Some(Some((change, Some(holder)))),
                Binding::Unbound | Binding::Changing => Some(Some((change, None))),
            }
        };
        self.settled.until(attempt).await
    }
}

/// The device's part in the power changes of the system.
struct Power<D: BusDevice>(Weak<Slot<D>>);

impl<D: BusDevice> Managed for Power<D> {
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(slot) = self.0.upgrade() else { return };
            if let Some((change, holder)) = slot.release(&|_| true).await {
                holder.bound.shutdown().await;
                change.bound(holder);
            }
        })
    }

    #[cfg(feature = "suspend")]
    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(async {
            let Some(slot) = self.0.upgrade() else {
                return Ok(());
            };
            let Some((change, mut holder)) = slot.release(&|_| true).await else {
                return Ok(());
            };
            let result = if holder.suspended {
                Ok(())
            } else {
                holder.bound.suspend().await
            };
            holder.suspended = result.is_ok();
            log_failure(&slot, "suspend", result);
            change.bound(holder);
            result
        })
    }

    #[cfg(feature = "suspend")]
    fn resume(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(async {
            let Some(slot) = self.0.upgrade() else {
                return Ok(());
            };
            let Some((change, mut holder)) = slot.release(&|_| true).await else {
                return Ok(());
            };
            let result = if holder.suspended {
                holder.bound.resume().await
            } else {
                Ok(())
            };
            holder.suspended = holder.suspended && result.is_err();
            log_failure(&slot, "resume", result);
            change.bound(holder);
            result
        })
    }
}

#[cfg(feature = "suspend")]
fn log_failure<D: BusDevice>(slot: &Slot<D>, what: &str, result: Result<(), PowerError>) {
    if let Err(error) = result {
        log::error!("{}: cannot {what}: {error}", slot.device.node().path());
    }
}
