//! Where devices are created, opened, attached and destroyed: what Linux has in
//! `/dev/vduse/control`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;
use vdpa::{Features, Platform, VdpaOps};
use vduse_protocol::DeviceConfig;

use super::device::{COUNT_MAX, Device, possible};
use super::error::{AttachError, CreateError, DestroyError, OpenError};
use super::ops::Ops;
use super::options::Options;
use super::task::Task;

/// All devices of tasks.
pub struct Control {
    platform: Arc<dyn Platform>,
    devices: Mutex<Vec<Arc<Device>>>,
}

/// A device that can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What its task calls it.
    pub name: String,
    /// The virtio device type.
    pub device_id: u32,
}

impl Control {
    /// The most queues that a device can have.
    pub const QUEUES_MAX: u32 = COUNT_MAX;

    /// The features that a device can offer besides those of its type.
    #[must_use]
    pub fn features() -> Features {
        possible()
    }

    /// No devices yet.
    #[must_use]
    pub fn new(platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            platform: Arc::clone(platform),
            devices: Mutex::default(),
        })
    }

    /// Creates a device. Its task opens it next, and sets up its queues.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(&self, config: &DeviceConfig, options: Options) -> Result<(), CreateError> {
        config.check(options.version)?;
        let device = Device::new(config, options, &self.platform)?;
        let mut devices = self.devices.lock();
        if devices.iter().any(|other| other.name() == config.name) {
            return Err(CreateError::Exists);
        }
        devices.push(device);
        Ok(())
    }

    /// Opens a device for its task, which has it alone.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, name: &str) -> Result<Task, OpenError> {
        let device = self.find(name).ok_or(OpenError::NoDevice)?;
        Task::open(device)
    }

    /// The devices that can be attached to the bus.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        let devices = self.devices.lock();
        let offered = devices.iter().filter(|device| device.is_offered());
        let offers = offered.map(|device| Offer {
            name: device.name().into(),
            device_id: device.device_id(),
        });
        offers.collect()
    }

    /// Makes a device ready for the bus, until the operations are dropped.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&self, name: &str) -> Result<Box<dyn VdpaOps>, AttachError> {
        let device = self.find(name).ok_or(AttachError::NoDevice)?;
        Ok(Box::new(Ops::attach(device)?))
    }

    /// Destroys a device that nobody uses.
    ///
    /// # Errors
    /// [`DestroyError`].
    pub fn destroy(&self, name: &str) -> Result<(), DestroyError> {
        let mut devices = self.devices.lock();
        let place = devices.iter().position(|device| device.name() == name);
        let place = place.ok_or(DestroyError::NoDevice)?;
        if !devices[place].retire() {
            return Err(DestroyError::Busy);
        }
        let device = devices.remove(place);
        drop(devices);
        drop(device);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Arc<Device>> {
        let devices = self.devices.lock();
        let found = devices.iter().find(|device| device.name() == name);
        found.cloned()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = self.devices.lock().len();
        f.debug_struct("Control")
            .field("devices", &devices)
            .finish_non_exhaustive()
    }
}
