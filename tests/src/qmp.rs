//! Telling a running QEMU what to do, over its machine protocol (QMP).

use std::io::{self, BufRead, BufReader, Write};
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
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Qmp {
            answers: BufReader::new(stream),
        };
        // The greeting.
        qmp.line()?;
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

    /// Says `command`, and waits until it is done.
    fn execute(&mut self, command: &str) -> io::Result<()> {
        self.answers.get_mut().write_all(command.as_bytes())?;
        loop {
            let line = self.line()?;
            if line.starts_with(r#"{"return""#) {
                return Ok(());
            }
            // What is neither answer nor error is an event.
            if line.starts_with(r#"{"error""#) {
                return Err(io::Error::other(line));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
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
