//! The outer machine: its IOMMU, a root port for each function, and the Linux that passes them on.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use qemu::device::Transport;
use qemu::guest::Guest;
use qemu::machine::Memory;
use tempfile::TempDir;

use super::SCRIPT;
use crate::linux_guest::{Debian, Initramfs, Missing, emulator, with_libraries};

/// What passes functions to a guest, and the driver from which they are taken.
const MODULES: [&str; 3] = ["virtio_pci", "vfio_pci", "vfio_iommu_type1"];

/// Every access of a device is translated, none goes past the tables. Linux tries at boot whether
/// the timer interrupts, and gives up where a busy host lets it wait.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=on iommu=nopt";

/// Without remapping of interrupts Linux passes nothing on.
const IOMMU: &str = "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on";

/// What puts a virtio function behind the IOMMU, which only a modern one can be.
const BEHIND_IOMMU: &str = "disable-legacy=on,iommu_platform=on,ats=on";

/// Where the inner machine's kernel is.
const KERNEL: &str = "/kernel";

/// MiB for Linux, its files and the inner machine with its usual 128.
const MEMORY_MIB: u32 = 512;

/// Subsystem of a network function of Intel's cards.
const INTEL_NET: u16 = 0x001a;

/// Subsystem of a block function of Intel's cards.
const INTEL_BLK: u16 = 0x0002;

/// A Linux that can pass functions on, with a QEMU.
#[derive(Debug)]
pub struct Host {
    kernel: PathBuf,
    files: Initramfs,
}

/// Whose functions the inner guest believes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// QEMU's, as they are.
    Virtio,
    /// Virtual functions of an Intel card: the inner QEMU changes the subsystem, by which they
    /// differ.
    Intel,
}

impl Identity {
    /// The property of the inner QEMU's device for a function whose subsystem would be `intel`.
    fn property(self, intel: u16) -> String {
        match self {
            Self::Virtio => String::new(),
            Self::Intel => {
                format!(",x-pci-sub-vendor-id=0x8086,x-pci-sub-device-id={intel:#06x}")
            }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtio => "virtio",
            Self::Intel => "intel",
        })
    }
}

/// An outer machine to be started, and its files, which go with this value.
#[derive(Debug)]
pub struct Nested {
    outer: Guest,
    _files: TempDir,
}

impl Host {
    /// Makes one of what `cache` holds of Debian's packages, fetches what is not there, and adds
    /// this host's QEMU.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn ensure(cache: &Path) -> Result<Self, Missing> {
        let debian = Debian::ensure(cache)?;
        let mut files = Initramfs::new(&debian, &MODULES, SCRIPT)?;
        for path in emulator()? {
            let path = path.to_string_lossy();
            let bytes = fs::read(&*path).map_err(|_| Missing::File(path.to_string()))?;
            files = files.with_program(&path, &bytes);
        }
        let kernel = debian.kernel()?;
        Ok(Self { kernel, files })
    }

    /// An outer machine with the cards and disks of `inner`, which gets them by pass-through.
    ///
    /// # Errors
    ///
    /// What reading the kernel and writing files gives.
    pub fn pass_to(&self, inner: Guest, identity: Identity) -> io::Result<Nested> {
        let mut outer = Outer::new(&self.kernel)?;
        let functions = outer.take_functions(&inner);
        let kernel = fs::read(&inner.kernel)?;
        let mut inner = Guest {
            kernel: KERNEL.into(),
            nets: Vec::new(),
            disks: Vec::new(),
            ..inner
        };
        for Function { address, intel } in &functions {
            let property = identity.property(*intel);
            let passed = format!("vfio-pci,host={address},romfile={property}");
            inner.extra.extend(["-device".into(), passed.into()]);
        }
        let files = self.files.clone().with(KERNEL, &kernel);
        outer.run(files, &functions, &inner.command_line())
    }

    /// An outer machine with the cards and disks of `inner`, in which `program`, the one behind
    /// `cargo run`, is told to bind them to `vfio-pci` for the time of a run of the kernel. It
    /// believes that all are network functions of Intel's.
    ///
    /// # Errors
    ///
    /// What reading the kernel and the program and writing files gives.
    pub fn lend_to(&self, program: &Path, inner: &Guest) -> io::Result<Nested> {
        let mut outer = Outer::new(&self.kernel)?;
        let functions = outer.take_functions(inner);
        let mut files = self.files.clone();
        for path in with_libraries(program).map_err(io::Error::other)? {
            files = files.with_program(&path.to_string_lossy(), &fs::read(&path)?);
        }
        files = files.with(KERNEL, &fs::read(&inner.kernel)?);
        files = files.with("lent", &[]);
        let mut command = format!("{} --bind --accel tcg --kernel {KERNEL}", program.display());
        for Function { address, .. } in &functions {
            command += &format!(" --passthrough {address}");
        }
        command += " --";
        for property in Identity::Intel.property(INTEL_NET).split(',').skip(1) {
            command += &format!(" -global vfio-pci.{property}");
        }
        outer.run(files, &functions, &command)
    }
}

/// An outer machine that is being put together.
struct Outer {
    guest: Guest,
    folder: TempDir,
}

/// A function that is passed on.
struct Function {
    /// Where the Linux has it.
    address: String,
    /// The subsystem that it would have on a card of Intel's.
    intel: u16,
}

impl Outer {
    fn new(kernel: &Path) -> io::Result<Self> {
        let guest = Guest {
            append: KERNEL_WORDS.into(),
            memory: Memory::from_mib(MEMORY_MIB).expect("it is within QEMU's limits"),
            ..Guest::new(kernel)
        };
        let mut outer = Self {
            guest,
            folder: TempDir::with_prefix("ringway-nested-")?,
        };
        outer.add("-smp", "cpus=2");
        outer.add("-device", IOMMU);
        Ok(outer)
    }

    fn add(&mut self, option: &str, value: &str) {
        let words = [option, value].map(Into::into);
        self.guest.extra.extend(words);
    }

    /// Gets the cards and disks of `inner`.
    fn take_functions(&mut self, inner: &Guest) -> Vec<Function> {
        let nets = inner.nets.iter().enumerate();
        let disks = inner.disks.iter().enumerate();
        let devices = nets
            .map(|(index, net)| (net.arguments(index, Transport::Pci), INTEL_NET))
            .chain(disks.map(|(index, disk)| (disk.arguments(index, Transport::Pci), INTEL_BLK)));
        let mut functions = Vec::new();
        for (port, ([backend_option, backend, option, device], intel)) in (1..).zip(devices) {
            // Only behind a port has a function a reset of its own, and a group of its own.
            let id = format!("port{port}");
            self.add("-device", &format!("pcie-root-port,id={id},chassis={port}"));
            self.add(&backend_option, &backend);
            self.add(&option, &format!("{device},bus={id},{BEHIND_IOMMU}"));
            // The firmware numbers the buses behind the ports in the order of the ports.
            let address = format!("0000:{port:02x}:00.0");
            functions.push(Function { address, intel });
        }
        functions
    }

    /// Lets the Linux run `command`.
    fn run(
        mut self,
        files: Initramfs,
        functions: &[Function],
        command: &str,
    ) -> io::Result<Nested> {
        let addresses = functions.iter().map(|function| function.address.as_str());
        let addresses: Vec<&str> = addresses.collect();
        let initramfs = self.folder.path().join("initramfs");
        self.add("-initrd", &initramfs.to_string_lossy());
        files
            .with("functions", (addresses.join("\n") + "\n").as_bytes())
            .with("inner", command.as_bytes())
            .write(File::create(&initramfs)?)?;
        Ok(Nested {
            outer: self.guest,
            _files: self.folder,
        })
    }
}

impl Nested {
    /// The outer machine. Its console carries the inner one's.
    pub fn outer(&self) -> &Guest {
        &self.outer
    }
}
