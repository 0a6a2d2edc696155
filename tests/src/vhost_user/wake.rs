//! Event counters of Linux: how the guest's kicks arrive, how it is called, and how a thread is
//! told to stop.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A wish that its holders stop. Once made it stays.
#[derive(Clone, Debug)]
pub(super) struct Stop(Arc<File>);

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd.into())))
    }

    /// Makes the wish.
    pub(super) fn raise(&self) -> io::Result<()> {
        signal(&self.0)
    }

    /// Waits until `source` can be read, at most for `limit`.
    pub(super) fn wait_with(&self, source: impl AsFd, limit: Option<Duration>) -> io::Result<Wake> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let source: BorrowedFd<'_> = source.as_fd();
        let mut fds = [readable(self.0.as_fd()), readable(source)];
        let limit = limit.map(Timespec::try_from);
        let limit = limit.transpose().map_err(io::Error::other)?;
        // After a signal the wait begins anew: there are none but those that end the process.
        while let Err(error) = poll(&mut fds, limit.as_ref()) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        Ok(match [&fds[0], &fds[1]].map(|fd| fd.revents().is_empty()) {
            [false, _] => Wake::Stop,
            [true, false] => Wake::Ready,
            [true, true] => Wake::TimedOut,
        })
    }
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Its holder is to stop.
    Stop,
    /// There is something to read.
    Ready,
    /// Neither, for as long as it was to wait.
    TimedOut,
}

/// An event counter of the front-end, which exchanges it at any time, even while a ring runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Arc<Mutex<Option<File>>>);

impl Line {
    /// Takes another counter, or none.
    ///
    /// A new one is raised at once: one that asked the guest between the old one's last event and
    /// now has looked in vain (a spurious interrupt does no harm; VIRTIO 1.2, 2.7.7.1).
    pub(super) fn connect(&self, counter: Option<File>) -> io::Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counter;
        self.raise()
    }

    /// Tells the guest, if it wants to be told.
    pub(super) fn raise(&self) -> io::Result<()> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(counter) => signal(counter),
            None => Ok(()),
        }
    }
}

/// Adds one to an event counter.
fn signal(mut counter: &File) -> io::Result<()> {
    match counter.write_all(&1_u64.to_ne_bytes()) {
        // Full: there is more than one event to see already.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

/// Sets an event counter that can be read back to zero.
pub(super) fn acknowledge(mut counter: &File) -> io::Result<()> {
    let mut count = [0; 8];
    match counter.read_exact(&mut count) {
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}
