//! A bus: where devices meet drivers. For matching only.
//!
//! One implementation serves every kind of device: `Bus<PciDevice>`,
//! [`VdpaBus`](crate::device::VdpaBus), the virtio bus. It decides who drives a device, one driver
//! at a time, in whatever order devices and drivers arrive, and takes them apart again. What a
//! device can do is no business of the bus.
//!
//! If several drivers match, the first of these decides: the device's override, an exact row of an
//! id table, a row with wildcards, the name; then the one that was registered first. If its probe
//! fails, the next one gets its chance.

mod binding;
mod claim;
mod contract;
mod matching;
mod slot;
mod transfer;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Debug};

use spin::Mutex;

use crate::ids::{IdAllocator, IdGuard, OutOfIds};

pub use self::claim::{ByBus, Claim};
pub use self::contract::{Bound, BusDevice, Driver, Exactness, ProbeError};
pub use self::transfer::CarryError;

use self::slot::Slot;

/// The longest name of a device or a driver, in bytes.
pub const NAME_MAX: usize = 63;

/// Why a device or a driver cannot be put on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The name is empty or longer than [`NAME_MAX`].
    #[error("a name must have 1 to {NAME_MAX} bytes")]
    BadName,
    /// Another one on the bus has the name.
    #[error("the name is taken")]
    NameTaken,
    /// The device is on a bus already.
    #[error("the device is on a bus already")]
    OnABus,
    /// The bus has been closed.
    #[error("the bus is closed")]
    Closed,
}

/// The bus cannot be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{devices} devices are on the bus and {ids} ids are in use")]
pub struct Busy {
    /// Devices still on the bus.
    pub devices: usize,
    /// Ids still held, by devices on the bus or by references to devices that have left it.
    pub ids: usize,
}

/// A bus of devices of one kind.
///
/// Every method that awaits may be called from any task at any time. No lock is held while a driver
/// or a device is at work.
pub struct Bus<D: BusDevice> {
    name: &'static str,
    ids: Arc<IdAllocator>,
    members: Mutex<Members<D>>,
}

struct Members<D: BusDevice> {
    devices: Vec<Arc<Slot<D>>>,
    /// In the order of their registration.
    drivers: Vec<Arc<dyn Driver<D>>>,
    closed: bool,
}

impl<D: BusDevice> Bus<D> {
    /// An empty bus.
    #[must_use]
    pub fn new(name: &'static str) -> Arc<Self> {
        let members = Members {
            devices: Vec::new(),
            drivers: Vec::new(),
            closed: false,
        };
        Arc::new(Self {
            name,
            ids: IdAllocator::new(u32::MAX),
            members: Mutex::new(members),
        })
    }

    /// A number for a device's name, `vdpa0` or `lan.0`. The device must keep the guard.
    ///
    /// # Errors
    /// [`OutOfIds`].
    pub fn allocate_id(&self) -> Result<IdGuard, OutOfIds> {
        self.ids.allocate()
    }

    /// Puts a device on the bus and offers it to the drivers that match. That none claims it is no
    /// error.
    ///
    /// # Errors
    /// [`AddError`]: the device is not on the bus.
    pub async fn add_device(self: &Arc<Self>, device: Arc<D>) -> Result<(), AddError> {
        let slot = Slot::new(device);
        let name = slot.device.node().name();
        check_name(name)?;
        let mut members = self.members.lock();
        if members.closed {
            return Err(AddError::Closed);
        }
        if members
            .devices
            .iter()
            .any(|other| other.device.node().name() == name)
        {
            return Err(AddError::NameTaken);
        }
        if !slot.join_tree() {
            return Err(AddError::OnABus);
        }
        members.devices.push(Arc::clone(&slot));
        drop(members);
        self.find_driver(&slot).await;
        Ok(())
    }

    /// Takes a device off the bus. This is the one sequence for every cause: what depends on it
    /// goes first ([`BusDevice::before_remove`]), no driver can claim it any more and its
    /// operations fail ([`BusDevice::leaving`]), its driver lets go, it comes to rest
    /// ([`BusDevice::quiesce`]), what works for it ends ([`BusDevice::left`]), and it leaves bus
    /// and tree. References that are left keep it alive. A device that is not on the bus is left
    /// alone.
    pub async fn remove_device(&self, device: &Arc<D>) {
        let Some(slot) = self.slot(device) else {
            return;
        };
        device.before_remove(self).await;
        device.leaving(ByBus::new());
        Self::evict(&slot).await;
        device.left(ByBus::new()).await;
        self.forget(&slot);
    }

    /// Registers a driver and offers it every device without one.
    ///
    /// # Errors
    /// [`AddError`]: the driver is not registered.
    pub async fn add_driver(self: &Arc<Self>, driver: Arc<dyn Driver<D>>) -> Result<(), AddError> {
        check_name(driver.name())?;
        let mut members = self.members.lock();
        if members.closed {
            return Err(AddError::Closed);
        }
        if members
            .drivers
            .iter()
            .any(|other| other.name() == driver.name())
        {
            return Err(AddError::NameTaken);
        }
        members.drivers.push(Arc::clone(&driver));
        let devices = members.devices.clone();
        drop(members);
        for slot in devices {
            self.offer(&slot, &driver).await;
        }
        Ok(())
    }

    /// Takes a driver off the bus and every device from it. They stay unbound until another driver
    /// is registered or the bus is [scanned again](Bus::rescan).
    pub async fn remove_driver(&self, name: &str) {
        let mut members = self.members.lock();
        let Some(index) = members
            .drivers
            .iter()
            .position(|driver| driver.name() == name)
        else {
            return;
        };
        let driver = members.drivers.remove(index);
        let devices = members.devices.clone();
        drop(members);
        // Of two devices the younger one goes first, as everywhere.
        for slot in devices.iter().rev() {
            self.unbind_from(slot, &driver).await;
        }
    }

    /// Offers every device without a driver to the drivers that match.
    pub async fn rescan(self: &Arc<Self>) {
        let devices = self.members.lock().devices.clone();
        for slot in devices {
            self.find_driver(&slot).await;
        }
    }

    /// Says that only the driver of this name may claim the device, whether it matches or not;
    /// `None` takes that back. A device that another driver holds is taken from it.
    pub async fn set_override(self: &Arc<Self>, device: &Arc<D>, driver: Option<&str>) {
        let Some(slot) = self.slot(device) else {
            return;
        };
        slot.set_override(driver.map(ToOwned::to_owned));
        self.rebind(&slot).await;
    }

    /// The devices on the bus, as they are now, in the order of their arrival.
    #[must_use]
    pub fn devices(&self) -> Vec<Arc<D>> {
        let members = self.members.lock();
        members
            .devices
            .iter()
            .map(|slot| Arc::clone(&slot.device))
            .collect()
    }

    /// The names and aliases of the devices that no driver has claimed.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let devices = self.members.lock().devices.clone();
        let unbound = devices.iter().filter(|slot| slot.is_unbound());
        unbound.map(|slot| slot.describe()).collect()
    }

    /// The name of the driver that has claimed the device.
    #[must_use]
    pub fn driver_of(&self, device: &Arc<D>) -> Option<String> {
        self.slot(device)?.device.node().driver()
    }

    /// Takes every driver off an empty bus; nothing can be added afterwards.
    ///
    /// # Errors
    /// [`Busy`], if a device is on the bus or an id is in use; then nothing changes.
    pub fn close(&self) -> Result<(), Busy> {
        let mut members = self.members.lock();
        let busy = Busy {
            devices: members.devices.len(),
            ids: self.ids.in_use(),
        };
        if busy != (Busy { devices: 0, ids: 0 }) {
            return Err(busy);
        }
        members.closed = true;
        let drivers = core::mem::take(&mut members.drivers);
        drop(members);
        drop(drivers);
        Ok(())
    }

    fn slot(&self, device: &Arc<D>) -> Option<Arc<Slot<D>>> {
        let members = self.members.lock();
        members
            .devices
            .iter()
            .find(|slot| Arc::ptr_eq(&slot.device, device))
            .cloned()
    }
}

fn check_name(name: &str) -> Result<(), AddError> {
    if (1..=NAME_MAX).contains(&name.len()) {
        Ok(())
    } else {
        Err(AddError::BadName)
    }
}

impl<D: BusDevice> Debug for Bus<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.members.lock();
        f.debug_struct("Bus")
            .field("name", &self.name)
            .field("devices", &members.devices.len())
            .field("drivers", &members.drivers.len())
            .finish()
    }
}
