//! The model of Intel's card as a program beside QEMU, which has it as a device of its machine
//! (`vfio-user-pci`).

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qemu::guest::Guest;
use serde_json::json;
use tempfile::TempDir;
use thiserror::Error;

use crate::programs::{self, BuildError};

/// The package and its program.
const PACKAGE: &str = "ifcvf-card";

/// How long a card stays after its machine has gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sockets at both ends of a network card's cable.
const CARDS_END: &str = "cards-end";
const MACHINES_END: &str = "machines-end";

/// Why there is no card.
#[derive(Debug, Error)]
pub enum CardError {
    /// It does not build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It does not run.
    #[error("{PACKAGE}: {0}")]
    Run(#[from] io::Error),
    /// It ends before a machine comes.
    #[error("{PACKAGE} ends: {0}")]
    Ended(String),
    /// It does not end with its machine.
    #[error("{PACKAGE} stays after its machine has gone")]
    Stays,
}

/// Builds the program.
///
/// # Errors
///
/// [`CardError::Build`].
pub fn build() -> Result<PathBuf, CardError> {
    Ok(programs::build(PACKAGE)?)
}

/// A card that waits for its machine, or is in it. It ends with the value.
#[derive(Debug)]
pub struct Card {
    child: Child,
    stdin: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    complaints: Option<JoinHandle<String>>,
    folder: TempDir,
}

/// What a card has to say when its machine has gone.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it ended well.
    pub success: bool,
    /// What it counted.
    pub counters: String,
    /// What the machine's drivers did that they must not.
    pub violations: Vec<String>,
    /// What it said against its machine, or its own options.
    pub complaints: String,
}

impl Card {
    /// Starts `program` as a card of this product, with more options.
    ///
    /// # Errors
    ///
    /// [`CardError::Run`], [`CardError::Ended`].
    pub fn start<S: AsRef<OsStr>>(
        program: &Path,
        product: &str,
        options: &[S],
    ) -> Result<Self, CardError> {
        let folder = TempDir::with_prefix("ringway-card-")?;
        let mut child = Command::new(program)
            .current_dir(folder.path())
            .args(["--socket", "card", "--product", product])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let mut card = Self {
            stdin: child.stdin.take(),
            child,
            said: BufReader::new(stdout),
            complaints: Some(thread::spawn(move || read(stderr))),
            folder,
        };
        // Says that it waits.
        if card.said.read_line(&mut String::new())? == 0 {
            return Err(CardError::Ended(card.complaints()));
        }
        Ok(card)
    }

    /// The options for a network card whose cable leads into the machine's user network, see
    /// [`plug_in`](Self::plug_in).
    pub const CABLE: [&str; 3] = ["--cable", CARDS_END, MACHINES_END];

    /// Puts this card into `guest`, whose memory is [shared](share_memory).
    pub fn attach(&self, guest: &mut Guest) {
        let path = self.folder.path().join("card");
        let device = json!({
            "driver": "vfio-user-pci",
            "socket": { "type": "unix", "path": path },
        });
        let words = ["-device".into(), device.to_string().into()];
        guest.extra.extend(words);
    }

    /// Leads the cable of this card into a user network of `guest`, in which a port of the host is
    /// the machine's port 80.
    pub fn plug_in(&self, guest: &mut Guest, port: u16) {
        let end = |name| self.folder.path().join(name).display().to_string();
        let (own, peer) = (end(MACHINES_END), end(CARDS_END));
        for backend in [
            format!("user,id=lan,hostfwd=tcp:127.0.0.1:{port}-:80"),
            format!(
                "dgram,id=cable,local.type=unix,local.path={own},remote.type=unix,remote.path={peer}"
            ),
            "hubport,id=port0,hubid=0,netdev=lan".into(),
            "hubport,id=port1,hubid=0,netdev=cable".into(),
        ] {
            guest.extra.extend(["-netdev".into(), backend.into()]);
        }
    }

    /// Tells it to begin to misbehave.
    ///
    /// # Errors
    ///
    /// It takes no orders any more.
    pub fn order(&mut self, misbehaviour: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(format!("{misbehaviour}\n").as_bytes())
    }

    /// Waits for its end, which comes with that of its machine.
    ///
    /// # Errors
    ///
    /// [`CardError::Stays`], [`CardError::Run`].
    pub fn finish(mut self) -> Result<Report, CardError> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                return Err(CardError::Stays);
            }
            thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        self.said.read_to_string(&mut text)?;
        let lines = || {
            text.lines()
                .filter_map(|line| line.strip_prefix("ifcvf-card: "))
        };
        let violations = lines().filter_map(|line| line.strip_prefix("the driver: "));
        let mut counters = lines().filter(|line| line.starts_with("Counters"));
        Ok(Report {
            success: status.success(),
            counters: counters.next().unwrap_or_default().into(),
            violations: violations.map(Into::into).collect(),
            complaints: self.complaints(),
        })
    }

    fn complaints(&mut self) -> String {
        let complaints = self.complaints.take().map(JoinHandle::join);
        complaints.and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shares the memory of `guest` with its cards.
pub fn share_memory(guest: &mut Guest) {
    let memory = format!(
        "memory-backend-memfd,id=memory,size={},share=on",
        guest.memory
    );
    for words in [
        ["-object".into(), memory],
        ["-machine".into(), "memory-backend=memory".into()],
    ] {
        guest.extra.extend(words.map(Into::into));
    }
}

fn read(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    // What could be read before an error is still worth showing.
    let _ = stderr.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
