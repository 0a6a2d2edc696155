//! Ctrl-C and its relatives: what a person or a supervisor sends to end the program.
//!
//! The default action would end it at once and leave the guest running, a temporary image behind
//! and the terminal in QEMU's mode.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The exit code of a program that Ctrl-C ended, as shells give it.
pub const INTERRUPTED: u8 = 130;

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);

/// The wish to end, and the process that it concerns now.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    wanted: Arc<AtomicBool>,
    process: Arc<Mutex<Option<Pid>>>,
}

impl Interrupt {
    /// Catches `SIGINT`, `SIGTERM` and `SIGHUP`. Can be done once per process;
    /// [`Interrupt::default`] is one that never happens.
    ///
    /// # Errors
    ///
    /// An error when the handler is there already or the system refuses it.
    pub fn install() -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || handler.ask())?;
        Ok(interrupt)
    }

    /// Whether the program has been asked to end.
    pub fn happened(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Asks the program to end.
    fn ask(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.end_process();
    }

    /// Waits for the end of `child`, and asks it to end when the program is asked.
    ///
    /// # Errors
    ///
    /// What waiting for a process gives.
    pub fn watch(&self, mut child: Child) -> io::Result<ExitStatus> {
        self.set_process(i32::try_from(child.id()).ok().and_then(Pid::from_raw));
        if self.happened() {
            self.end_process();
        }
        let status = child.wait();
        self.set_process(None);
        status
    }

    fn set_process(&self, pid: Option<Pid>) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    /// Sends `SIGTERM`, on which QEMU closes its images and restores the terminal, and `SIGKILL`
    /// if it does not end. On a terminal QEMU has got the Ctrl-C itself; the second signal does no
    /// harm.
    fn end_process(&self) {
        self.signal(Signal::TERM);
        let interrupt = self.clone();
        thread::spawn(move || {
            thread::sleep(GRACE);
            interrupt.signal(Signal::KILL);
        });
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *process {
            // It fails when the process has ended but has not been waited for: then all is done.
            let _ = kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn watched_process_ends_when_the_program_is_asked_to() {
        let interrupt = Interrupt::default();
        let child = Command::new("sleep").arg("100").spawn().unwrap();
        let asker = interrupt.clone();
        let asking = thread::spawn(move || {
            while asker.process.lock().unwrap().is_none() {
                thread::yield_now();
            }
            asker.ask();
        });
        let status = interrupt.watch(child).unwrap();
        asking.join().unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
        assert!(interrupt.happened());
    }

    #[test]
    fn process_started_after_the_wish_to_end_ends_too() {
        let interrupt = Interrupt::default();
        interrupt.ask();
        let status = interrupt
            .watch(Command::new("sleep").arg("100").spawn().unwrap())
            .unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    }
}
