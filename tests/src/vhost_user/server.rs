//! Waits for a front-end on a socket and serves it until it leaves.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use vhost::vhost_user::{BackendReqHandler, Error};
use virtq::device::Counters;

use super::backend::Backend;
use super::blk::{Disk, Requests};
use super::wake::{Stop, Wake};

/// How long a front-end that has begun a message may take to end it.
const MESSAGE: Duration = Duration::from_secs(10);

/// A device that one front-end may connect to. It ends with the value.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    disk: Arc<Disk>,
    backend: Arc<Mutex<Backend>>,
    stop: Stop,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What a device did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The features that driver and device agreed on last.
    pub features: u64,
    /// What each queue did.
    pub queues: Vec<Counters>,
    /// How often a queue went on from where it had stood, after a stop or on other memory.
    pub resumed: u64,
    /// What the disk was asked for.
    pub requests: Requests,
    /// Everything that went wrong.
    pub faults: Vec<String>,
}

impl Server {
    /// Offers `disk` with `queues` queues.
    ///
    /// # Errors
    ///
    /// If there is no socket or no thread to be had.
    pub fn start(disk: Disk, queues: u16) -> io::Result<Self> {
        let directory = TempDir::with_prefix("ringway-vhost-")?;
        let disk = Arc::new(disk);
        let backend = Arc::new(Mutex::new(Backend::new(Arc::clone(&disk), queues)));
        let stop = Stop::new()?;
        let listener = UnixListener::bind(socket(directory.path()))?;
        let thread = thread::Builder::new().name("vhost-user".into()).spawn({
            let (stop, backend) = (stop.clone(), Arc::clone(&backend));
            move || match stop.wait_with(&listener, None)? {
                Wake::Ready => converse(listener.accept()?.0, &stop, backend),
                Wake::Stop | Wake::TimedOut => Ok(()),
            }
        })?;
        Ok(Self {
            directory,
            disk,
            backend,
            stop,
            thread: Some(thread),
        })
    }

    /// The socket that a front-end connects to.
    pub fn socket(&self) -> PathBuf {
        socket(self.directory.path())
    }

    /// Ends it, and says what it did.
    pub fn finish(mut self) -> Report {
        let conversation = self.end();
        let backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = backend.failures();
        faults.extend(conversation.err().map(|error| error.to_string()));
        Report {
            features: backend.features(),
            queues: backend.counters(),
            resumed: backend.resumed(),
            requests: self.disk.requests(),
            faults,
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop.raise()?;
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let panicked = |_| io::Error::other("the thread of a device panicked");
        let conversation = thread.join().map_err(panicked)?;
        let mut backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
        backend.stop().map_err(io::Error::other)?;
        conversation
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Who wants to know how it ended calls `finish`.
        let _ = self.end();
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("blk.sock")
}

/// Answers requests until the front-end leaves or `stop` is raised.
fn converse(stream: UnixStream, stop: &Stop, backend: Arc<Mutex<Backend>>) -> io::Result<()> {
    stream.set_read_timeout(Some(MESSAGE))?;
    let requests = stream.try_clone()?;
    let mut handler = BackendReqHandler::from_stream(stream, backend);
    loop {
        if stop.wait_with(&requests, None)? == Wake::Stop {
            return Ok(());
        }
        match handler.handle_request() {
            Ok(()) => {}
            Err(Error::Disconnected) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}
