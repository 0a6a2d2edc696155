//! What a bus asks of its devices and of their drivers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::error::Error;
use core::fmt::Debug;
use core::future::ready;

use crate::Node;
use crate::ops::OpError;
use crate::platform::BoxFuture;
#[cfg(feature = "suspend")]
use crate::power::PowerError;

use super::{Bus, ByBus, Claim};

/// What can be put on a bus.
pub trait BusDevice: Send + Sync + 'static {
    /// One row of a driver's id table.
    type Id: Debug + Send + Sync + 'static;

    /// The device's place in the device tree, which also names it: no two devices of a bus share a
    /// name.
    fn node(&self) -> &Arc<Node>;

    /// The kind of device, which a driver without an id table must bear as its name. Several
    /// devices may share it.
    fn match_name(&self) -> &str;

    /// Whether the row describes this device.
    fn matches(&self, id: &Self::Id) -> bool;

    /// How closely the row describes the devices that it matches.
    fn exactness(_id: &Self::Id) -> Exactness {
        Exactness::Exact
    }

    /// The device's ids as one word, to find the driver that is missing.
    fn alias(&self) -> String;

    /// Brings the device to rest. The bus calls it after a failed probe and after a driver has let
    /// go, whose claim has ended; afterwards another driver may claim the device.
    fn quiesce(&self, by: ByBus<Self>) -> BoxFuture<'_, ()> {
        let _ = by;
        Box::pin(ready(()))
    }

    /// The device is about to be taken off the bus: what cannot be without it goes first.
    fn before_remove<'a>(&'a self, _bus: &'a Bus<Self>) -> BoxFuture<'a, ()>
    where
        Self: Sized,
    {
        Box::pin(ready(()))
    }

    /// The device is being taken off the bus. From now on its operations fail, except those that
    /// bring it to rest; its driver still has it.
    fn leaving(&self, by: ByBus<Self>) {
        let _ = by;
    }

    /// No driver has the device any more and it is at rest; it leaves the bus when this is done.
    fn left(&self, by: ByBus<Self>) -> BoxFuture<'_, ()> {
        let _ = by;
        Box::pin(ready(()))
    }
}

/// How closely a row of an id table describes a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exactness {
    /// Every field that identifies the device.
    Exact,
    /// Some fields match anything.
    Wildcard,
}

/// What drives devices of a bus. One driver may drive many.
pub trait Driver<D: BusDevice>: Send + Sync {
    /// The driver's name, unique on the bus.
    fn name(&self) -> &str;

    /// Which devices it drives. An empty table counts as none: then the name decides.
    fn ids(&self) -> &[D::Id] {
        &[]
    }

    /// Claims a device that matches, through the row `id` if there is a table. It belongs to the
    /// driver until [`Bound::remove`] is over.
    ///
    /// A failed probe must leave nothing behind; the bus [quiesces](BusDevice::quiesce) the device
    /// itself. A probe must not wait for an operation of the same bus on the same device.
    ///
    /// # Errors
    /// [`ProbeError`]: the device stays unbound and the next driver that matches is asked.
    fn probe<'a>(
        &'a self,
        device: Claim<D>,
        id: Option<&'a D::Id>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        let _ = (device, id);
        Box::pin(ready(Ok(Box::new(()) as Box<dyn Bound>)))
    }
}

/// A driver's hold on one device: what a successful probe leaves.
pub trait Bound: Send + Sync {
    /// Lets the device go. Nothing can be done about a failure, so there is none.
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    /// Stops the device because the system goes down.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// Brings the device to rest so that it can lose power.
    ///
    /// # Errors
    /// [`PowerError`]: the system does not suspend.
    #[cfg(feature = "suspend")]
    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(ready(Ok(())))
    }

    /// Goes on where [`Bound::suspend`] has stopped.
    ///
    /// # Errors
    /// [`PowerError`], if the device does not come back.
    #[cfg(feature = "suspend")]
    fn resume(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(ready(Ok(())))
    }
}

/// A binding that needs no care.
impl Bound for () {}

/// Why a driver did not claim a device.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The device lacks something. What it is, a type of the driver's crate says.
    #[error("unsuitable device: {0}")]
    Unsuitable(#[source] Box<dyn Error + Send + Sync>),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] OpError),
    /// Memory, interrupt vectors or ids ran out.
    #[error("out of resources")]
    OutOfResources,
}

impl ProbeError {
    /// The device lacks something, as `cause` says.
    pub fn unsuitable(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::Unsuitable(Box::new(cause))
    }
}
