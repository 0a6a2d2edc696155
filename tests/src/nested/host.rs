//! The outer machine: its IOMMU, a root port for each function, and the Linux that passes them on.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use qemu::guest::Guest;
use qemu::machine::Memory;
use tempfile::TempDir;

use super::SCRIPT;
use crate::linux_guest::{Debian, Initramfs, Missing, emulator};

/// What passes functions to a guest.
const MODULES: [&str; 2] = ["vfio_pci", "vfio_iommu_type1"];

/// Every access of a device is translated, none goes past the tables. Linux tries at boot whether the timer
/// interrupts, and gives up where a busy host lets it wait.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=on iommu=nopt";

/// Without remapping of interrupts Linux passes nothing on.
const IOMMU: &str = "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on";

/// What puts a virtio function behind the IOMMU, which only a modern one can be.
const BEHIND_IOMMU: &str = "disable-legacy=on,iommu_platform=on,ats=on";

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
    /// Virtual functions of an Intel card: the inner QEMU changes the subsystem, by which they differ.
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
    /// Makes one of what `cache` holds of Debian's packages, fetches what is not there, and adds this host's QEMU.
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
        let folder = TempDir::with_prefix("ringway-nested-")?;
        let initramfs = folder.path().join("initramfs");
        let mut outer = Guest {
            append: KERNEL_WORDS.into(),
            memory: Memory::from_mib(MEMORY_MIB).expect("it is within QEMU's limits"),
            ..Guest::new(&self.kernel)
        };
        let mut add = |option: &str, value: &str| {
            outer.extra.extend([option, value].map(Into::into));
        };
        add("-initrd", &initramfs.to_string_lossy());
        add("-smp", "cpus=2");
        add("-device", IOMMU);

        let kernel = fs::read(&inner.kernel)?;
        let mut inner = Guest {
            kernel: "/kernel".into(),
            ..inner
        };
        let nets = std::mem::take(&mut inner.nets);
        let disks = std::mem::take(&mut inner.disks);
        let nets = nets.iter().enumerate();
        let disks = disks.iter().enumerate();
        let functions = nets
            .map(|(index, net)| (net.arguments(index), INTEL_NET))
            .chain(disks.map(|(index, disk)| (disk.arguments(index), INTEL_BLK)));
        let mut addresses = String::new();
        for (port, ([backend_option, backend, option, device], intel)) in (1..).zip(functions) {
            // Only behind a port has a function a reset of its own, and a group of its own.
            let id = format!("port{port}");
            add("-device", &format!("pcie-root-port,id={id},chassis={port}"));
            add(&backend_option, &backend);
            add(&option, &format!("{device},bus={id},{BEHIND_IOMMU}"));
            // The firmware numbers the buses behind the ports in the order of the ports.
            let address = format!("0000:{port:02x}:00.0");
            let property = identity.property(intel);
            let passed = format!("vfio-pci,host={address},romfile={property}");
            inner.extra.extend(["-device".into(), passed.into()]);
            addresses += &format!("{address}\n");
        }

        self.files
            .clone()
            .with("kernel", &kernel)
            .with("functions", addresses.as_bytes())
            .with("inner", inner.command_line().as_bytes())
            .write(File::create(&initramfs)?)?;
        Ok(Nested {
            outer,
            _files: folder,
        })
    }
}

impl Nested {
    /// The outer machine. Its console carries the inner one's.
    pub fn outer(&self) -> &Guest {
        &self.outer
    }
}
