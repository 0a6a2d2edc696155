//! `/dev/vduse/NAME`: the messages of a device, and the calls that its program makes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use vduse_protocol::{
    ConfigUpdate, DecodeError, IotlbEntry, KickFd, Message, Outcome, QueueInfo, QueueSetup,
    RawState, Response, ioctl,
};

use crate::calls::{Calls, Linux};
use crate::error::Error;

/// A device that this program serves; no other can meanwhile.
#[derive(Debug)]
pub struct DeviceFile {
    file: OwnedFd,
    calls: Arc<dyn Calls>,
}

/// What has been waited for.
enum Waited {
    /// Maybe a message.
    Message,
    Stop,
}

impl DeviceFile {
    /// Opens the device `name`.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Served`], or why it cannot be opened.
    pub fn open(name: &str) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = open(format!("/dev/vduse/{name}"), flags, Mode::empty());
        let file = file.map_err(|error| match error {
            Errno::NOENT => Error::NoDevice,
            Errno::BUSY => Error::Served,
            error => Error::of("/dev/vduse")(error.into()),
        })?;
        Ok(Self::with(file, Arc::new(Linux)))
    }

    pub(crate) fn with(file: OwnedFd, calls: Arc<dyn Calls>) -> Self {
        Self { file, calls }
    }

    /// Waits for the next message, or until the counter `stop` is not zero: then there is none. One
    /// that means nothing to this library it answers itself: that it has failed.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Decode`] for what is no message at all; why it cannot be read.
    pub(crate) fn receive(&self, stop: BorrowedFd<'_>) -> Result<Option<Message>, Error> {
        loop {
            // Room for more than a message, so that a longer one is seen to be.
            let mut bytes = [0; Message::SIZE + 8];
            let length = match rustix::io::read(&self.file, &mut bytes) {
                Ok(0) => return Err(Error::Closed),
                Ok(length) => length,
                Err(Errno::AGAIN) => match self.wait(stop)? {
                    Waited::Message => continue,
                    Waited::Stop => return Ok(None),
                },
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Error::of("a message")(error.into())),
            };
            let bytes = &bytes[..length];
            match (Message::decode(bytes), Message::id_in(bytes)) {
                (Ok(message), _) => return Ok(Some(message)),
                (Err(error @ DecodeError::Length { .. }), _) | (Err(error), None) => {
                    return Err(error.into());
                }
                (Err(_), Some(id)) => self.reply(&Response::new(id, Outcome::Failed))?,
            }
        }
    }

    /// Answers a message. That nobody waits for the answer any more is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reply(&self, response: &Response) -> Result<(), Error> {
        match rustix::io::write(&self.file, &response.encode()) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::of("an answer")(error.into())),
        }
    }

    /// The features that the driver has chosen.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn driver_features(&self) -> Result<u64, Error> {
        let mut features = [0; 8];
        self.call(ioctl::DEV_GET_FEATURES, &mut features)
            .map_err(Error::of("VDUSE_DEV_GET_FEATURES"))?;
        Ok(u64::from_ne_bytes(features))
    }

    /// Changes the configuration space, and tells the driver if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_config(&self, update: &ConfigUpdate) -> Result<(), Error> {
        self.call(ioctl::DEV_SET_CONFIG, &mut update.encode())
            .map_err(Error::of("VDUSE_DEV_SET_CONFIG"))?;
        match self.call(ioctl::DEV_INJECT_CONFIG_IRQ, &mut []) {
            // No driver has started the device: one that does reads all of the space.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result.map_err(Error::of("VDUSE_DEV_INJECT_CONFIG_IRQ")),
        }
    }

    /// Says what a queue can be, before the device is attached.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up_queue(&self, setup: QueueSetup) -> Result<(), Error> {
        self.call(ioctl::VQ_SETUP, &mut setup.encode())
            .map_err(Error::of("VDUSE_VQ_SETUP"))
    }

    /// How the driver has set a queue up.
    ///
    /// # Errors
    /// What the kernel says; [`Error::Decode`], if that means nothing.
    pub fn queue_info(&self, index: u16) -> Result<QueueInfo, Error> {
        let question = QueueInfo {
            index: index.into(),
            size: 0,
            descriptor: 0,
            driver: 0,
            device: 0,
            state: RawState::default(),
            ready: false,
        };
        let mut argument = question.encode();
        self.call(ioctl::VQ_GET_INFO, &mut argument)
            .map_err(Error::of("VDUSE_VQ_GET_INFO"))?;
        Ok(QueueInfo::decode(&argument)?)
    }

    /// How many queues the device has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn queue_count(&self) -> Result<u16, Error> {
        for index in 0..u16::MAX {
            match self.queue_info(index) {
                Err(Error::Call { error, .. }) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Ok(index);
                }
                other => drop(other?),
            }
        }
        Ok(u16::MAX)
    }

    /// Lets the driver's kicks of a queue add to an event counter.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_kick(&self, index: u16, counter: BorrowedFd<'_>) -> Result<(), Error> {
        let kick = KickFd {
            index: index.into(),
            fd: Some(counter.as_raw_fd()),
        };
        self.call(ioctl::VQ_SETUP_KICKFD, &mut kick.encode())
            .map_err(Error::of("VDUSE_VQ_SETUP_KICKFD"))
    }

    /// Interrupts the driver for a queue. False if no driver has started the device, as far as the
    /// kernel knows, which it does a moment after it was told so.
    ///
    /// # Errors
    /// What the kernel says otherwise.
    pub fn interrupt(&self, index: u16) -> Result<bool, Error> {
        match self.call(ioctl::VQ_INJECT_IRQ, &mut u32::from(index).to_ne_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Ok(()) => Ok(true),
            Err(error) => Err(Error::of("VDUSE_VQ_INJECT_IRQ")(error)),
        }
    }

    /// The first mapping that has a part in the range `start..=last` of an address space, and the
    /// file behind it. `None`, if nothing is mapped there.
    ///
    /// # Errors
    /// What the kernel says; [`Error::Decode`], if its answer means nothing.
    pub fn mapping(
        &self,
        address_space: u32,
        start: u64,
        last: u64,
    ) -> Result<Option<(IotlbEntry, OwnedFd)>, Error> {
        let question = IotlbEntry {
            offset: 0,
            start,
            last,
            permission: None,
            address_space,
        };
        // The second structure is there from version 1 on, and has two lengths.
        let kinds: &[(u32, usize)] = match address_space {
            0 => &[(ioctl::IOTLB_GET_FD, IotlbEntry::SIZE)],
            _ => &[
                (ioctl::IOTLB_GET_FD2, IotlbEntry::SIZE_V2),
                (ioctl::IOTLB_GET_FD2_LONG, IotlbEntry::SIZE_V2_LONG),
            ],
        };
        for &(number, size) in kinds {
            let mut argument = question.encode(size).unwrap_or_default();
            let opened = self.calls.open(self.file.as_fd(), number, &mut argument);
            match opened {
                Ok(file) => return Ok(Some((IotlbEntry::decode(&argument)?, file))),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOTTY) => {}
                    Some(Errno::INVAL | Errno::PERM | Errno::FAULT) => return Ok(None),
                    _ => return Err(Error::of("VDUSE_IOTLB_GET_FD")(error)),
                },
            }
        }
        Ok(None)
    }

    fn wait(&self, stop: BorrowedFd<'_>) -> Result<Waited, Error> {
        let mut files = [
            PollFd::new(&self.file, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::of("poll")(error.into())),
        }
        let events = files[0].revents();
        // The kernel gives a device up that has not answered in time.
        if events.intersects(PollFlags::ERR) && !events.contains(PollFlags::IN) {
            return Err(Error::Closed);
        }
        if files[1].revents().contains(PollFlags::IN) {
            return Ok(Waited::Stop);
        }
        Ok(Waited::Message)
    }

    fn call(&self, number: u32, argument: &mut [u8]) -> io::Result<()> {
        self.calls.call(self.file.as_fd(), number, argument)
    }
}
