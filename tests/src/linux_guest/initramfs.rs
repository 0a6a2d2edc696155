//! The first file system of a Linux guest: busybox, modules, a script, and what the script works
//! with.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux (the "newc"
//! archive).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use super::debian::{Debian, Missing};

/// What comes before the caller's script: the tools, the usual file systems, the modules.
const PROLOGUE: &str = "#!/bin/busybox sh
/bin/busybox --install /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
";

/// What comes after it.
const EPILOGUE: &str = "\npoweroff -f\n";

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DATA: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// The device number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// An archive that grows.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Initramfs {
    /// One that loads `modules`, unless the kernel has them built in, runs `script` with busybox's
    /// shell, and switches the machine off after it.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn new(debian: &Debian, modules: &[&str], script: &str) -> Result<Self, Missing> {
        let mut files = Self::default();
        for directory in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
            files.directory(directory);
        }
        files.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[]);
        files = files.with_program("bin/busybox", &debian.busybox()?);
        for (number, module) in debian.modules(modules)?.iter().enumerate() {
            // The shell's order is that of the alphabet.
            files = files.with(&format!("modules/{number:02}.ko"), module);
        }
        let script = [PROLOGUE, script, EPILOGUE].concat();
        Ok(files.with_program("init", script.as_bytes()))
    }

    /// Adds a file, and the directories on the way to it.
    #[must_use]
    pub fn with(self, path: &str, bytes: &[u8]) -> Self {
        self.with_file(path, DATA, bytes)
    }

    /// Adds a file that can be run.
    #[must_use]
    pub fn with_program(self, path: &str, bytes: &[u8]) -> Self {
        self.with_file(path, PROGRAM, bytes)
    }

    /// Writes the archive.
    ///
    /// # Errors
    ///
    /// What writing gives.
    pub fn write(mut self, mut to: impl Write) -> io::Result<()> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        to.write_all(&self.archive)
    }

    fn with_file(mut self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        // Names in the archive are relative to its root.
        let path = path.trim_start_matches('/');
        // The first ancestor is the path itself, the last is the root.
        let mut ancestors: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        ancestors.pop();
        for directory in ancestors.into_iter().rev() {
            self.directory(&directory.to_string_lossy());
        }
        self.entry(path, mode, (0, 0), bytes);
        self
    }

    fn directory(&mut self, path: &str) {
        if self.directories.insert(path.into()) {
            self.entry(path, DIRECTORY, (0, 0), &[]);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) {
        self.inode += 1;
        let links = 1;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("files here are small");
        // A name ends with a zero byte.
        let name = [name.as_bytes(), b"\0"].concat();
        self.archive.extend(b"070701");
        for field in [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            length(bytes),
            0,
            0,
            device.0,
            device.1,
            length(&name),
            0,
        ] {
            self.archive.extend(format!("{field:08x}").as_bytes());
        }
        self.archive.extend(name);
        self.pad();
        self.archive.extend(bytes);
        self.pad();
    }

    /// Names and contents begin at multiples of four bytes.
    fn pad(&mut self) {
        self.archive
            .resize(self.archive.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_each_other_at_multiples_of_four_bytes() {
        let mut written = Vec::new();
        let files = Initramfs::default().with("one", b"12345").with("two", b"");
        files.write(&mut written).unwrap();
        // Header and name of 110 + 4 bytes, padded to 116, and 5 bytes, padded to 8.
        assert_eq!(&written[..14], b"07070100000001");
        assert_eq!(&written[110..121], b"one\0\0\x0012345");
        assert_eq!(&written[124..130], b"070701");
        assert_eq!(&written[124 + 110..124 + 114], b"two\0");
        assert!(written.windows(10).any(|bytes| bytes == b"TRAILER!!!"));
        assert!(written.len().is_multiple_of(4));
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_only_once() {
        let mut written = Vec::new();
        let files = Initramfs::default()
            .with("/usr/lib/a", b"")
            .with_program("/usr/lib/b", b"");
        files.write(&mut written).unwrap();
        let text = String::from_utf8(written).unwrap();
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].trim_end_matches('\0'))
            .collect();
        assert_eq!(
            names,
            ["usr", "usr/lib", "usr/lib/a", "usr/lib/b", "TRAILER!!!"]
        );
    }
}
