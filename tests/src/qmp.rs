//! Telling a running QEMU what to do, over its machine protocol (QMP).

use std::io::{self, BufRead, BufReader, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use qemu::guest::Guest;
use tempfile::{TempDir, tempdir};

/// How long QEMU may take to open its socket or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The place where a machine will listen.
#[derive(Debug)]
pub struct Socket {
    /// Keeps the folder until the end.
    _folder: TempDir,
    path: PathBuf,
}

impl Socket {
    /// A place, and the machine that listens there.
    ///
    /// # Errors
    ///
    /// The folder for it cannot be made.
    pub fn open(mut guest: Guest) -> io::Result<(Guest, Self)> {
        let folder = tempdir()?;
        let path = folder.path().join("qmp");
        let option = format!("unix:{},server=on,wait=off", path.display());
        guest.extra.extend(["-qmp".into(), option.into()]);
        let socket = Self {
            _folder: folder,
            path,
        };
        Ok((guest, socket))
    }

    /// The conversation with the machine that has been started.
    ///
    /// # Errors
    ///
    /// It does not listen, or not to QMP.
    pub fn connect(&self) -> io::Result<Qmp> {
        let stream = connect(&self.path)?;
        let mut qmp = Qmp {
            answers: BufReader::new(stream),
            partial: String::new(),
            events: Vec::new(),
        };
        // The greeting.
        qmp.line(Instant::now() + PATIENCE)?;
        qmp.execute(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(qmp)
    }
}

/// Where a cable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// Plugged in.
    In,
    /// Pulled out.
    Out,
}

/// A conversation with a running QEMU.
#[derive(Debug)]
pub struct Qmp {
    answers: BufReader<UnixStream>,
    /// The start of a line whose end has not come yet.
    partial: String,
    /// What has happened and nobody has asked for, each a line.
    events: Vec<String>,
}

impl Qmp {
    /// Plugs the cable of the network card behind `netdev` in or out.
    ///
    /// # Errors
    ///
    /// QEMU refuses, or does not answer.
    pub fn set_link(&mut self, netdev: &str, cable: Cable) -> io::Result<()> {
        let up = cable == Cable::In;
        self.execute(&format!(
            r#"{{"execute":"set_link","arguments":{{"name":"{netdev}","up":{up}}}}}"#
        ))
    }

    /// Plugs a device in: `driver` with these properties, of which `id` names it.
    ///
    /// # Errors
    ///
    /// QEMU refuses, or does not answer.
    pub fn device_add(&mut self, driver: &str, properties: &[(&str, &str)]) -> io::Result<()> {
        let properties: String = properties
            .iter()
            .map(|(name, value)| format!(r#","{name}":"{value}""#))
            .collect();
        self.execute(&format!(
            r#"{{"execute":"device_add","arguments":{{"driver":"{driver}"{properties}}}}}"#
        ))
    }

    /// Asks the guest to let the device `id` go.
    ///
    /// # Errors
    ///
    /// QEMU refuses, or does not answer.
    pub fn device_del(&mut self, id: &str) -> io::Result<()> {
        self.execute(&format!(
            r#"{{"execute":"device_del","arguments":{{"id":"{id}"}}}}"#
        ))
    }

    /// Waits until the device `id` is gone, but not for longer than `patience`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`]; or QEMU has ended.
    pub fn wait_until_deleted(&mut self, id: &str, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        let (event, device) = (r#""DEVICE_DELETED""#, format!(r#""device": "{id}""#));
        loop {
            let mut events = self.events.iter();
            if let Some(at) = events.position(|it| it.contains(event) && it.contains(&device)) {
                self.events.remove(at);
                return Ok(());
            }
            let line = self.line(deadline)?;
            self.events.push(line);
        }
    }

    /// Says `command`, and waits until it is done.
    fn execute(&mut self, command: &str) -> io::Result<()> {
        self.answers.get_mut().write_all(command.as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.line(deadline)?;
            if line.starts_with(r#"{"return""#) {
                return Ok(());
            }
            if line.starts_with(r#"{"error""#) {
                return Err(io::Error::other(line));
            }
            self.events.push(line);
        }
    }

    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.answers.get_ref().set_read_timeout(Some(patience))?;
        match self.answers.read_line(&mut self.partial) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(mem::take(&mut self.partial)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// The socket appears when QEMU has come that far.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}
