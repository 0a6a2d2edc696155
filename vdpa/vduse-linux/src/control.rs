//! `/dev/vduse/control`: devices come and go.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use vduse_protocol::{ApiVersion, DeviceConfig, NAME_LEN, ioctl};

use crate::calls::{Calls, Linux};
use crate::error::Error;

const PATH: &str = "/dev/vduse/control";

/// The file that makes devices.
#[derive(Debug)]
pub struct Control {
    file: OwnedFd,
    calls: Arc<dyn Calls>,
    version: ApiVersion,
}

/// What has become of a wish for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    New,
    /// One of this name was there, which another program has made.
    Existing,
}

impl Control {
    /// Opens it, and agrees with the kernel on the newest version that both know.
    ///
    /// # Errors
    /// [`Error::NoVduse`], or why the file cannot be opened.
    pub fn open() -> Result<Self, Error> {
        let file = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let file = file.map_err(|error| match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Error::NoVduse,
            error => Error::of(PATH)(error.into()),
        })?;
        Self::with(file, Arc::new(Linux))
    }

    pub(crate) fn with(file: OwnedFd, calls: Arc<dyn Calls>) -> Result<Self, Error> {
        let mut version = 0_u64.to_ne_bytes();
        let newest = calls.call(file.as_fd(), ioctl::GET_API_VERSION, &mut version);
        newest.map_err(Error::of("VDUSE_GET_API_VERSION"))?;
        let (version, number) = match u64::from_ne_bytes(version) {
            0 => (ApiVersion::V0, 0_u64),
            _ => (ApiVersion::V1, 1),
        };
        let set = calls.call(
            file.as_fd(),
            ioctl::SET_API_VERSION,
            &mut number.to_ne_bytes(),
        );
        set.map_err(Error::of("VDUSE_SET_API_VERSION"))?;
        Ok(Self {
            file,
            calls,
            version,
        })
    }

    /// What was agreed on.
    #[must_use]
    pub fn version(&self) -> ApiVersion {
        self.version
    }

    /// Makes a device. One of this name that is there stays as it is.
    ///
    /// # Errors
    /// [`Error::Config`], if the kernel makes no such device; what it says otherwise.
    pub fn create(&self, config: &DeviceConfig) -> Result<Created, Error> {
        config.check(self.version)?;
        let mut argument = config.encode(self.version);
        match self.call(ioctl::CREATE_DEV, &mut argument) {
            Ok(()) => Ok(Created::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Existing),
            Err(error) => Err(Error::of("VDUSE_CREATE_DEV")(error)),
        }
    }

    /// Ends a device that is on no bus and served by nobody.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NoDevice`], or what the kernel says otherwise.
    pub fn destroy(&self, name: &str) -> Result<(), Error> {
        if name.is_empty() || name.len() >= NAME_LEN || name.contains('\0') {
            return Err(Error::NoDevice);
        }
        let mut argument = [0; NAME_LEN];
        argument[..name.len()].copy_from_slice(name.as_bytes());
        let destroyed = self.call(ioctl::DESTROY_DEV, &mut argument);
        destroyed.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => Error::InUse,
            Some(Errno::INVAL | Errno::NOENT | Errno::NODEV) => Error::NoDevice,
            _ => Error::of("VDUSE_DESTROY_DEV")(error),
        })
    }

    fn call(&self, number: u32, argument: &mut [u8]) -> io::Result<()> {
        self.calls.call(self.file.as_fd(), number, argument)
    }
}

#[cfg(test)]
mod tests;
