//! A machine that runs with its console captured line by line, for tests and measurements.
//!
//! Everything has a deadline, and dropping a [`Running`] ends its QEMU.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::guest::{Guest, QEMU};

/// How often the end of the process is looked for once its console has closed.
const POLL: Duration = Duration::from_millis(5);

/// Why a running machine gave no answer.
#[derive(Debug, Error)]
pub enum RunError {
    /// QEMU could not be started.
    #[error("{QEMU} does not start: {0}")]
    Start(#[source] io::Error),
    /// QEMU could not be waited for.
    #[error("{QEMU} cannot be waited for: {0}")]
    Wait(#[source] io::Error),
    /// Its console takes no input.
    #[error("nothing can be typed on the machine's console: {0}")]
    Type(#[source] io::Error),
    /// The deadline passed.
    #[error("the machine was not done at the deadline")]
    TimedOut,
    /// The console closed before the awaited line.
    #[error("the machine ended before its console said {0:?}")]
    Ended(String),
}

impl Guest {
    /// Starts the machine with its console captured.
    ///
    /// # Errors
    ///
    /// [`RunError::Start`].
    pub fn spawn(&self) -> Result<Running, RunError> {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(RunError::Start)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = child.stderr.take();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let Some(mut stdout) = stdout else { return };
            while let Some(line) = read_line(&mut stdout) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stderr) = stderr {
                // What could be read before an error is still worth showing.
                let _ = stderr.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Running {
            child,
            stdin,
            lines,
            complaints: Some(complaints),
            console: Vec::new(),
        })
    }
}

/// A QEMU process and its console.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Option<JoinHandle<String>>,
    console: Vec<String>,
}

/// What a machine left behind.
#[derive(Debug)]
pub struct Ended {
    /// QEMU's exit status; [`guest_code`](crate::exit::guest_code) reads it.
    pub status: ExitStatus,
    /// Every line of the console.
    pub console: Vec<String>,
    /// What QEMU itself wrote to standard error.
    pub complaints: String,
}

impl Running {
    /// The next line of the console, `None` when it has closed.
    ///
    /// # Errors
    ///
    /// [`RunError::TimedOut`] at `deadline`.
    pub fn next_line(&mut self, deadline: Instant) -> Result<Option<String>, RunError> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.console.push(line.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(RunError::TimedOut),
        }
    }

    /// Waits for a line that contains `text`.
    ///
    /// # Errors
    ///
    /// [`RunError::TimedOut`] at `deadline`, [`RunError::Ended`] when the console closes first.
    pub fn wait_for(&mut self, text: &str, deadline: Instant) -> Result<String, RunError> {
        loop {
            match self.next_line(deadline)? {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => return Err(RunError::Ended(text.into())),
            }
        }
    }

    /// Types a line on the console.
    ///
    /// # Errors
    ///
    /// [`RunError::Type`].
    pub fn type_line(&mut self, line: &str) -> Result<(), RunError> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe);
        let stdin = stdin.map_err(|kind| RunError::Type(kind.into()))?;
        let typed = stdin.write_all(format!("{line}\n").as_bytes());
        typed.and_then(|()| stdin.flush()).map_err(RunError::Type)
    }

    /// The console so far.
    pub fn console(&self) -> &[String] {
        &self.console
    }

    /// Waits for the machine to end by itself.
    ///
    /// # Errors
    ///
    /// [`RunError::TimedOut`] at `deadline`; the machine is killed then. [`RunError::Wait`].
    pub fn finish(mut self, deadline: Instant) -> Result<Ended, RunError> {
        while self.next_line(deadline)?.is_some() {}
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(RunError::Wait)? {
                break status;
            }
            if Instant::now() >= deadline {
                return Err(RunError::TimedOut);
            }
            thread::sleep(POLL);
        };
        let complaints = self.complaints.take().map(JoinHandle::join);
        Ok(Ended {
            status,
            console: std::mem::take(&mut self.console),
            complaints: complaints.and_then(Result::ok).unwrap_or_default(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line without its end, whatever bytes are in it; `None` at the end or at an error.
fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(
            String::from_utf8_lossy(&line)
                .trim_end_matches(['\r', '\n'])
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_and_keep_the_rest() {
        let mut console: &[u8] = b"one\r\n\ntwo \xff\nlast";
        let lines: Vec<String> = std::iter::from_fn(|| read_line(&mut console)).collect();
        assert_eq!(lines, ["one", "", "two \u{fffd}", "last"]);
    }
}
