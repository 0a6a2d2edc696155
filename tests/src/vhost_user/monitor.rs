//! QEMU's monitor: stops a machine and lets it go on.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu::guest::Guest;
use tempfile::TempDir;

/// What the monitor says when it waits for a command.
const PROMPT: &[u8] = b"(qemu) ";

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The place of a monitor that no machine has yet.
#[derive(Debug)]
pub struct MonitorSocket(TempDir);

/// The monitor of a machine that runs.
#[derive(Debug)]
pub struct Monitor(UnixStream);

impl MonitorSocket {
    /// Gives `guest` a monitor.
    ///
    /// # Errors
    ///
    /// If there is no place for its socket.
    pub fn attach(guest: &mut Guest) -> io::Result<Self> {
        let socket = Self(TempDir::with_prefix("ringway-monitor-")?);
        let place = format!("unix:{},server=on,wait=off", socket.path().display());
        guest.extra.extend(["-monitor".into(), place.into()]);
        Ok(socket)
    }

    /// Connects to the monitor of the machine, which must have been started.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn connect(&self) -> io::Result<Monitor> {
        let stream = UnixStream::connect(self.path())?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut monitor = Monitor(stream);
        monitor.wait_for_prompt()?;
        Ok(monitor)
    }

    fn path(&self) -> PathBuf {
        Path::join(self.0.path(), "monitor.sock")
    }
}

impl Monitor {
    /// Stops the processors and with them the devices.
    ///
    /// # Errors
    ///
    /// If the monitor does not answer.
    pub fn stop(&mut self) -> io::Result<()> {
        self.command("stop\n")
    }

    /// Lets a stopped machine go on.
    ///
    /// # Errors
    ///
    /// If the monitor does not answer.
    pub fn go_on(&mut self) -> io::Result<()> {
        self.command("cont\n")
    }

    /// Gives a command and waits until it was done.
    fn command(&mut self, command: &str) -> io::Result<()> {
        self.0.write_all(command.as_bytes())?;
        self.wait_for_prompt()
    }

    fn wait_for_prompt(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + ANSWER;
        let mut said = Vec::new();
        while !said.ends_with(PROMPT) {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            said.extend(byte);
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}
