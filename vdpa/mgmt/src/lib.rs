//! Management: who can make vDPA devices, making and deleting them, and what they say about
//! themselves.
//!
//! A [`ManagementDevice`] makes devices on demand, configured as its user wants before anybody can
//! see them. Devices that a parent driver found by itself (a PCI function) are shown with that
//! parent as their management device; they come and go with their hardware and cannot be deleted
//! here.
//!
//! The rules are those of Linux's netlink family `vdpa`, as the program `vdpa` of iproute2 uses it;
//! its words, text and JSON are made elsewhere, from the plain values here. Who may call is for the
//! caller to decide.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod attributes;
mod config;
mod error;
mod handle;
mod manager;
mod report;
mod rules;
#[cfg(feature = "sim")]
mod sim_blk;
#[cfg(feature = "sim")]
mod sim_net;
#[cfg(feature = "sim")]
mod simulators;
pub mod tool;
#[cfg(feature = "vduse")]
mod vduse;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use spin::{Mutex, Once};
use vdpa::Node;
use vdpa::device::{Removal, Removed, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::moving::Mover;
use vdpa::wait::AsyncMutex;

pub use vdpa::{BadMacAddress, MacAddress};

pub use self::attributes::{AttributeSet, Attributes};
pub use self::config::{
    BlkConfig, ConfigReport, Discard, NetConfig, Topology, TypeConfig, WriteZeroes,
};
pub use self::error::MgmtError;
pub use self::handle::{BadHandle, Handle};
use self::manager::Creator;
pub use self::manager::{CreateError, ManagementDevice, Product, Settings};
pub use self::report::{DeviceReport, ManagerReport, QueueKind, QueueStatistics, REPORT_BYTES};
#[cfg(feature = "sim")]
pub use self::sim_blk::SimBlks;
#[cfg(feature = "sim")]
pub use self::sim_net::SimNets;
#[cfg(feature = "vduse")]
pub use self::vduse::Vduse;

/// All management of the devices of one bus. Its operations take turns: of two that overlap, one
/// sees the world before the other, or after it.
pub struct Management {
    bus: Arc<VdpaBus>,
    parent_handle: fn(&Node) -> Handle,
    turn: AsyncMutex,
    managers: Mutex<Vec<Arc<dyn ManagementDevice>>>,
    mover: Once<Arc<dyn Mover>>,
}

impl Management {
    /// Management of `bus`. `parent_handle` tells how the management device is called that stands
    /// for the node of a parent driver's hardware.
    #[must_use]
    pub fn new(bus: Arc<VdpaBus>, parent_handle: fn(&Node) -> Handle) -> Arc<Self> {
        Arc::new(Self {
            bus,
            parent_handle,
            turn: AsyncMutex::default(),
            managers: Mutex::default(),
            mover: Once::new(),
        })
    }

    /// Offers the user to move devices. The first mover counts.
    pub fn offer_moves(&self, mover: Arc<dyn Mover>) {
        self.mover.call_once(|| mover);
    }

    /// Offers a management device to the user.
    ///
    /// # Errors
    /// [`MgmtError::Exists`], if there is one with its handle.
    pub async fn register(&self, manager: Arc<dyn ManagementDevice>) -> Result<(), MgmtError> {
        let _turn = self.turn.lock().await;
        if self.find_manager(manager.handle()).is_some() {
            return Err(MgmtError::Exists);
        }
        self.managers.lock().push(manager);
        Ok(())
    }

    /// The management devices, or the one that is wanted: those that make devices, and the parents
    /// of devices that came by themselves.
    ///
    /// # Errors
    /// [`MgmtError::NoManager`].
    pub async fn managers(&self, wanted: Option<&Handle>) -> Result<Vec<ManagerReport>, MgmtError> {
        let _turn = self.turn.lock().await;
        let managers = self.managers.lock().clone();
        let mut reports: Vec<_> = managers
            .iter()
            .map(|manager| ManagerReport::of_manager(&**manager))
            .collect();
        for device in self.bus.devices() {
            let handle = self.handle_of(&device);
            match reports.iter_mut().find(|report| report.handle == handle) {
                Some(report) if creator(&device).is_none() => report.include(&device),
                Some(_) => {}
                None => reports.push(ManagerReport::of_parent(handle, &device)),
            }
        }
        if let Some(wanted) = wanted {
            reports.retain(|report| report.handle == *wanted);
            if reports.is_empty() {
                return Err(MgmtError::NoManager);
            }
        }
        Ok(reports)
    }

    /// The devices on the bus, or the one that is wanted.
    ///
    /// # Errors
    /// [`MgmtError::NoDevice`].
    pub async fn devices(&self, wanted: Option<&str>) -> Result<Vec<DeviceReport>, MgmtError> {
        let _turn = self.turn.lock().await;
        let report = |device: &Arc<VdpaDevice>| DeviceReport::new(device, self.handle_of(device));
        match wanted {
            Some(name) => Ok(Vec::from([report(&self.find(name)?)])),
            None => Ok(self.bus.devices().iter().map(report).collect()),
        }
    }

    /// What the configuration space of the wanted device says, or of each that is of a known type.
    ///
    /// # Errors
    /// [`MgmtError::NoDevice`]; [`MgmtError::Unsupported`], if the wanted device is of another
    /// type; [`MgmtError::Device`].
    pub async fn configs(
        &self,
        wanted: Option<&str>,
    ) -> Result<Vec<(String, ConfigReport)>, MgmtError> {
        let _turn = self.turn.lock().await;
        let named = |device: &VdpaDevice, report| (device.node().name().to_owned(), report);
        if let Some(name) = wanted {
            let device = self.find(name)?;
            return Ok(Vec::from([named(&device, ConfigReport::read(&device)?)]));
        }
        let mut reports = Vec::new();
        for device in self.bus.devices() {
            match ConfigReport::read(&device) {
                Ok(report) => reports.push(named(&device, report)),
                // It has left meanwhile, or there is nothing that could be said about it.
                Err(MgmtError::Unsupported | MgmtError::Device(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reports)
    }

    /// What a device has counted for one of its queues.
    ///
    /// # Errors
    /// [`MgmtError::NoDevice`]; [`MgmtError::NoQueue`]; [`MgmtError::Unsupported`], if its type
    /// has no statistics; [`MgmtError::Again`], before its features have been negotiated;
    /// [`MgmtError::Device`].
    pub async fn statistics(&self, name: &str, queue: u32) -> Result<QueueStatistics, MgmtError> {
        let _turn = self.turn.lock().await;
        QueueStatistics::read(&*self.find(name)?, queue)
    }

    /// Lets a management device make a device, and puts it on the bus when it is configured
    /// completely.
    ///
    /// # Errors
    /// [`MgmtError`]: nothing is left of the device.
    pub async fn add(
        &self,
        name: &str,
        manager: &Handle,
        attributes: &Attributes,
    ) -> Result<Arc<VdpaDevice>, MgmtError> {
        let _turn = self.turn.lock().await;
        rules::check_name(name)?;
        rules::check_values(attributes)?;
        let manager = self.find_manager(manager).ok_or(MgmtError::NoManager)?;
        rules::check_for(&*manager, attributes)?;
        if self.find(name).is_ok() {
            return Err(MgmtError::Exists);
        }
        let product = manager.create(name, attributes).await?;
        let creator = Box::new(Creator {
            manager: manager.handle().clone(),
            settings: product.settings,
        });
        let config = VdpaDeviceConfig {
            name: Some(name.to_owned()),
            ..product.config
        };
        let registered = self.bus.register_for(product.ops, config, creator);
        Ok(registered.await?)
    }

    /// Takes a device off the bus that was made here, in use or not.
    ///
    /// # Errors
    /// [`MgmtError::NoDevice`]; [`MgmtError::NotCreated`], if it came by itself.
    pub async fn delete(&self, name: &str) -> Result<Removed, MgmtError> {
        let _turn = self.turn.lock().await;
        let device = self.find(name)?;
        if creator(&device).is_none() {
            return Err(MgmtError::NotCreated);
        }
        Ok(self.bus.unregister(&device, Removal::Orderly).await)
    }

    /// Gives a network device another address.
    ///
    /// # Errors
    /// [`MgmtError::NoDevice`]; [`MgmtError::NotUnicast`]; [`MgmtError::Unsupported`], if it is no
    /// network device or its maker cannot change it; [`MgmtError::Device`].
    pub async fn set_mac(&self, name: &str, mac: MacAddress) -> Result<(), MgmtError> {
        let _turn = self.turn.lock().await;
        let device = self.find(name)?;
        if !is_type(&device, virtio::Id::Net) {
            return Err(MgmtError::Unsupported);
        }
        if !mac.is_unicast() {
            return Err(MgmtError::NotUnicast);
        }
        let creator = creator(&device).ok_or(MgmtError::Unsupported)?;
        let settings = creator.settings.as_ref().ok_or(MgmtError::Unsupported)?;
        Ok(settings.set_mac(mac)?)
    }

    /// Moves what a device's driver has made of it to another device, while it is in use. A user of
    /// `to` loses it before; afterwards nobody uses the first device.
    ///
    /// # Errors
    /// [`MgmtError::NoDevice`]; [`MgmtError::SameDevice`]; [`MgmtError::Unsupported`], if nobody
    /// can move devices; [`MgmtError::Move`]: the first device goes on, if that is possible.
    pub async fn move_device(&self, from: &str, to: &str) -> Result<(), MgmtError> {
        let _turn = self.turn.lock().await;
        let (from, to) = (self.find(from)?, self.find(to)?);
        if Arc::ptr_eq(&from, &to) {
            return Err(MgmtError::SameDevice);
        }
        let mover = self.mover.get().ok_or(MgmtError::Unsupported)?;
        let moved = mover.move_device(&from, &to).await;
        moved.map_err(MgmtError::Move)
    }

    fn find(&self, name: &str) -> Result<Arc<VdpaDevice>, MgmtError> {
        let devices = self.bus.devices();
        let found = devices
            .into_iter()
            .find(|device| device.node().name() == name);
        found.ok_or(MgmtError::NoDevice)
    }

    fn find_manager(&self, handle: &Handle) -> Option<Arc<dyn ManagementDevice>> {
        let managers = self.managers.lock();
        let found = managers.iter().find(|manager| manager.handle() == handle);
        found.cloned()
    }

    /// The management device of a device: who made it, or the parent that found it.
    fn handle_of(&self, device: &VdpaDevice) -> Handle {
        match (creator(device), device.node().parent()) {
            (Some(creator), _) => creator.manager.clone(),
            (None, Some(parent)) => (self.parent_handle)(&parent),
            (None, None) => (self.parent_handle)(device.node()),
        }
    }
}

/// The management device that has made it on demand, if one has.
fn creator(device: &VdpaDevice) -> Option<&Creator> {
    device.creator()?.downcast_ref()
}

/// Whether a device is of a type of the specification.
fn is_type(device: &VdpaDevice, device_type: virtio::Id) -> bool {
    device.device_type() == u32::from(u8::from(device_type))
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let managers = self.managers.lock();
        f.debug_struct("Management")
            .field("bus", &self.bus)
            .field("managers", &managers.len())
            .finish_non_exhaustive()
    }
}
