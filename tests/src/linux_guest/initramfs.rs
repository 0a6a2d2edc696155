//! The first file system of a Linux guest: busybox, the modules of a virtio disk, and a script.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux (the "newc" archive).

use std::io::{self, Write};

use super::debian::{Debian, Missing};

/// The modules of a virtio disk on PCI, unless a kernel has them built in.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_blk"];

/// What comes before the caller's script: the tools, the usual file systems, the modules.
const PROLOGUE: &str = "#!/bin/busybox sh
/bin/busybox --install /bin
export PATH=/bin
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
#[derive(Debug, Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    inode: u32,
}

impl Initramfs {
    /// One that runs `script` with busybox's shell, with a virtio disk's modules loaded, and switches the
    /// machine off after it.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn new(debian: &Debian, script: &str) -> Result<Self, Missing> {
        let mut files = Self::default();
        for directory in ["bin", "dev", "modules", "proc", "sys"] {
            files.entry(directory, DIRECTORY, (0, 0), &[]);
        }
        files.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[]);
        files.entry("bin/busybox", PROGRAM, (0, 0), &debian.busybox()?);
        for (number, module) in debian.modules(&MODULES)?.iter().enumerate() {
            // The shell's order is that of the alphabet.
            let name = format!("modules/{number:02}.ko");
            files.entry(&name, DATA, (0, 0), module);
        }
        let script = [PROLOGUE, script, EPILOGUE].concat();
        files.entry("init", PROGRAM, (0, 0), script.as_bytes());
        Ok(files)
    }

    /// Adds a file to the top directory.
    #[must_use]
    pub fn with(mut self, name: &str, bytes: &[u8]) -> Self {
        self.entry(name, DATA, (0, 0), bytes);
        self
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
}
