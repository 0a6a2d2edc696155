//! The host that a function is taken from: its files below a folder, and its kernel's answer to
//! what is written there.
//!
//! Everything is read from `/sys`, `/proc` and `/dev`. The folder is `/`, or that of another host's
//! copy.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;

/// Where sysfs has the PCI bus.
pub(super) const PCI: &str = "sys/bus/pci";

/// A host.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    kernel: Box<dyn Kernel>,
}

/// What a host does, apart from being read.
pub trait Kernel: fmt::Debug {
    /// Writes `text` to an attribute of sysfs.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()>;

    /// Loads a module.
    ///
    /// # Errors
    ///
    /// When it is not loaded afterwards, with what `modprobe` said.
    fn load(&self, module: &str) -> io::Result<()>;

    /// Whether this process may read and write a file.
    fn permits(&self, file: &Path) -> bool;

    /// Tells the user what is being done to the host.
    fn tell(&self, line: &str);
}

impl Host {
    /// The host whose files are below `root`. What is written goes to those files.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self::new(root, Linux)
    }

    /// A host with a kernel of its own.
    pub fn new(root: impl Into<PathBuf>, kernel: impl Kernel + 'static) -> Self {
        Self {
            root: root.into(),
            kernel: Box::new(kernel),
        }
    }

    /// The file `below` the host's root.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub(super) fn exists(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// What a file says, without blanks around it; `None` when it cannot be read.
    pub(super) fn text(&self, below: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(below)).ok()?;
        Some(text.trim().to_string())
    }

    /// The names in a folder, sorted; none if there is no such folder.
    pub(super) fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    /// The name of what a symbolic link leads to.
    pub(super) fn link(&self, below: &str) -> Option<String> {
        let target = fs::read_link(self.path(below)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    pub(super) fn write(&self, below: &str, text: &str) -> io::Result<()> {
        self.kernel.write(&self.path(below), text)
    }

    pub(super) fn load(&self, module: &str) -> io::Result<()> {
        self.kernel.load(module)
    }

    pub(super) fn permits(&self, below: &str) -> bool {
        self.kernel.permits(&self.path(below))
    }

    pub(super) fn tell(&self, line: impl fmt::Display) {
        self.kernel.tell(&line.to_string());
    }
}

/// The kernel that runs this program.
#[derive(Debug)]
struct Linux;

impl Kernel for Linux {
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(attribute)?;
        // One write: the kernel takes each for a value of its own.
        file.write_all(text.as_bytes())
    }

    fn load(&self, module: &str) -> io::Result<()> {
        let output = Command::new("modprobe")
            .arg(module)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(said.trim().to_string()))
    }

    fn permits(&self, file: &Path) -> bool {
        rustix::fs::access(file, Access::READ_OK | Access::WRITE_OK).is_ok()
    }

    fn tell(&self, line: &str) {
        // A terminal that has gone must not keep functions from being given back, as a panic would.
        let _ = writeln!(io::stderr(), "{line}");
    }
}
