//! The options of `cargo run`, and the machine they describe.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use nbd_client::{Uri, UriError};
use qemu::accel::AccelChoice;
use qemu::bench;
use qemu::build::Profile;
use qemu::device::{Disk, Net, NetBackend, VirtioOptions};
use qemu::format::{Access, FormatError, Image};
use qemu::guest::{Debugger, Guest};
use qemu::iommu::{Behind, Iommu};
use qemu::machine::{Machine, Memory};
use qemu::network::{NetChoice, Network};
use qemu::passthrough::address::Address;
use qemu::passthrough::ids::Kind;
use qemu::passthrough::{Binder, Caution, Request};
use qemu::path::DataPath;
use qemu::{kernel_file, port, tree};

/// The TCP port the guest's web server listens on.
const GUEST_HTTP_PORT: u16 = 80;

/// The most queues a device of QEMU takes here.
const MOST_QUEUES: i64 = 64;

/// Boots the unikernel in QEMU and serves a directory over HTTP from inside it.
///
/// What is missing for that (the compiler's bare-metal target, QEMU) is installed where this takes
/// no question. Ctrl-C ends the guest; otherwise its exit code becomes that of this program.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cargo run --",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do instead of that.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Directory to serve: it is copied to a FAT32 disk of the guest [default: the sample site]
    #[arg(long, value_name = "DIR", conflicts_with = "disk")]
    pub serve: Option<PathBuf>,

    /// Disk image (raw or qcow2, told by its content), block device, or export of an NBD server,
    /// nbd://ADDRESS[:PORT]/EXPORT as the guest reaches it, to use instead of a copy of a directory
    #[arg(long, value_name = "IMAGE",
        value_parser = OsStringValueParser::new().try_map(DiskChoice::new))]
    pub disk: Option<DiskChoice>,

    /// The guest may not write to its disk
    #[arg(long)]
    pub read_only: bool,

    /// Port of localhost that leads to the guest's web server [default: 8080 or the next free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Guest memory, such as 64M or 1G
    #[arg(long, value_name = "SIZE", default_value_t)]
    pub memory: Memory,

    /// Board to emulate
    #[arg(long, value_enum, default_value_t)]
    pub machine: Machine,

    /// IOMMU before the devices: each reaches what the guest lends to it and nothing else, those of
    /// clients included
    #[arg(long, value_enum)]
    pub iommu: Option<Iommu>,

    /// Accelerator; auto takes KVM only where the hardware for it is really there
    #[arg(long, value_enum, default_value_t)]
    pub accel: AccelChoice,

    /// Processor model of QEMU [default: max, or host under KVM]
    #[arg(long, value_name = "MODEL", value_parser = model)]
    pub cpu: Option<String>,

    /// Network: user, none or tap=INTERFACE; and, with a comma between, who drives the card in the
    /// guest: virtio (its own driver) or vhost (a client task with the same driver)
    #[arg(long, value_name = "NETWORK", default_value_t)]
    pub net: NetChoice,

    /// Who drives the disk in the guest: its own driver, or a client task with the same driver
    #[arg(long, value_enum, value_name = "PATH", default_value_t)]
    pub blk: DataPath,

    /// Lets everybody who reaches the web server add, change and delete devices
    #[arg(long)]
    pub admin: bool,

    /// Queues of the disk, and queue pairs of a card on a tap interface
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=MOST_QUEUES))]
    pub queues: u16,

    /// PCI function of this host for the guest, such as 0000:3b:00.2; more than one with the option
    /// again. A network function takes the place of the user network, a block function that of the
    /// disk
    #[arg(long, value_name = "ADDRESS")]
    pub passthrough: Vec<Address>,

    /// Bind what is passed through to vfio-pci, and give it back to its driver at the end
    #[arg(long, requires = "passthrough")]
    pub bind: bool,

    /// Pass through also what this host uses, or what has virtual functions switched on
    #[arg(long, requires = "passthrough")]
    pub force: bool,

    /// Folder with the /sys, /proc and /dev of the host that functions are taken from
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub host_root: PathBuf,

    /// Let the driver for Intel's IFC functions drive the virtio devices of QEMU
    #[arg(long)]
    pub ifcvf: bool,

    /// Wait for a debugger before the first instruction
    #[arg(long)]
    pub gdb: bool,

    /// Build the kernel for speed; without it, it is built for size where that costs little
    #[arg(long, conflicts_with = "debug")]
    pub release: bool,

    /// Build the kernel unoptimized, with debug assertions
    #[arg(long)]
    pub debug: bool,

    /// Kernel to boot instead of building one: an ELF file with a PVH entry
    #[arg(long, value_name = "FILE", conflicts_with_all = ["release", "debug"])]
    pub kernel: Option<PathBuf>,

    /// Words for the kernel's command line, such as ip=10.0.2.15/24,gw=10.0.2.2 or log=debug
    #[arg(long, value_name = "WORDS", default_value = "", value_parser = words)]
    pub append: String,

    /// Print the QEMU command line instead of running it; nothing is built, installed or bound, and
    /// what is missing for --passthrough does no harm: the exit code is 0
    #[arg(long)]
    pub dry_run: bool,

    /// Further arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    pub extra: Vec<OsString>,
}

/// What else the program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Measures the data path, the IOTLB and the management of devices, and prints a table
    Bench(bench::Options),
}

/// Where the guest's disk comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory to copy.
    Directory(PathBuf),
    /// An image that is there.
    Image(PathBuf),
    /// An export of a server, which the guest connects to by itself.
    Remote(Uri),
}

/// The disk that `--disk` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskChoice {
    /// An image or a block device of this host.
    Image(PathBuf),
    /// An export of a server.
    Remote(Uri),
}

impl DiskChoice {
    fn new(text: OsString) -> Result<Self, UriError> {
        match text.to_str().unwrap_or_default().parse() {
            Ok(uri) => Ok(Self::Remote(uri)),
            // The name of a file, in any bytes.
            Err(UriError::Scheme) => Ok(Self::Image(text.into())),
            Err(error) => Err(error),
        }
    }
}

impl Cli {
    /// Refuses what clap cannot know to be wrong.
    pub fn check(&self) -> Result<()> {
        match &self.disk {
            Some(DiskChoice::Image(image)) => {
                self.image(image)?;
            }
            Some(DiskChoice::Remote(_)) if self.read_only => {
                bail!("--read-only: a server says itself whether its disk may be written")
            }
            Some(DiskChoice::Remote(_))
                if self.net.network == Network::None && self.passthrough.is_empty() =>
            {
                bail!("--disk nbd://... needs a network")
            }
            _ => {}
        }
        if let Some(directory) = &self.serve {
            let metadata = directory.metadata();
            let metadata = metadata.with_context(|| format!("--serve {}", directory.display()))?;
            ensure!(
                metadata.is_dir(),
                "--serve {} is not a directory",
                directory.display()
            );
        }
        if let Some(kernel) = &self.kernel {
            kernel_file::check(kernel)
                .map_err(|error| anyhow!("--kernel {}: {error}", kernel.display()))?;
        }
        if let Some(iommu) = self.iommu {
            let behind = if self.passthrough.is_empty() {
                Behind::Emulated
            } else {
                Behind::Functions
            };
            iommu.check(self.machine, behind).context("--iommu")?;
        }
        if self.port.is_some() && self.net.network != Network::User {
            bail!("--port needs --net user: only that network forwards a port of this host");
        }
        let mut addresses = self.passthrough.clone();
        addresses.sort_unstable();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("--passthrough {} is there twice", pair[0]);
        }
        Ok(())
    }

    /// Refuses options that have no meaning beside what is passed through.
    pub fn check_beside(&self, given: &[Kind]) -> Result<()> {
        if self.port.is_some() && self.network(given) != &Network::User {
            bail!(
                "--port needs --net user, whose place the function that is passed through takes: \
                 its page is at the guest's own address"
            );
        }
        if self.read_only && self.source(given).is_none() {
            bail!("--read-only needs a disk of QEMU's: name one with --serve or --disk");
        }
        Ok(())
    }

    /// What is to be passed through.
    pub fn request(&self) -> Request {
        Request {
            functions: self.passthrough.clone(),
            binder: if self.bind {
                Binder::Program
            } else {
                Binder::Somebody
            },
            caution: if self.force {
                Caution::Overruled
            } else {
                Caution::Heeded
            },
            memory: self.memory,
        }
    }

    /// What the kernel is built as.
    pub fn profile(&self) -> Profile {
        if self.debug {
            Profile::Debug
        } else if self.release {
            Profile::Release
        } else {
            Profile::Compact
        }
    }

    /// The features that the kernel is built with besides.
    pub fn features(&self) -> Vec<&'static str> {
        let is_remote = matches!(self.disk, Some(DiskChoice::Remote(_)));
        [("nbd", is_remote), ("iommu", self.iommu.is_some())]
            .into_iter()
            .filter_map(|(feature, wanted)| wanted.then_some(feature))
            .collect()
    }

    /// Where the disk comes from; `None` when a disk of the host is among the functions that are
    /// `given`, and no other has been asked for.
    pub fn source(&self, given: &[Kind]) -> Option<Source> {
        match (&self.disk, &self.serve) {
            (Some(DiskChoice::Image(image)), _) => Some(Source::Image(image.clone())),
            (Some(DiskChoice::Remote(uri)), _) => Some(Source::Remote(uri.clone())),
            (None, Some(directory)) => Some(Source::Directory(directory.clone())),
            (None, None) if given.contains(&Kind::Blk) => None,
            (None, None) => Some(Source::Directory(tree::sample_site())),
        }
    }

    /// The image at `path`, with what the guest may do to it.
    pub fn image(&self, path: &Path) -> Result<Image, FormatError> {
        Image::open(path, self.access())
    }

    /// What the card of QEMU's is connected to. A network function among those `given` takes the
    /// place of the user network.
    pub fn network(&self, given: &[Kind]) -> &Network {
        match &self.net.network {
            Network::User if given.contains(&Kind::Net) => &Network::None,
            network => network,
        }
    }

    /// The port of this host that leads to the guest, if the network has one.
    pub fn host_port(&self, given: &[Kind]) -> Result<Option<u16>> {
        match self.network(given) {
            Network::User => Ok(Some(port::choose(self.port)?)),
            Network::None | Network::Tap(_) => Ok(None),
        }
    }

    /// The machine with `kernel` in it, `image` as its disk, and functions of the kinds that are
    /// `given`.
    pub fn guest(
        &self,
        kernel: PathBuf,
        image: Option<Image>,
        host_port: Option<u16>,
        given: &[Kind],
    ) -> Guest {
        let disk = |image: Image| Disk {
            format: image.format,
            access: image.access,
            queues: self.queues,
            virtio: self.virtio(),
            ..Disk::new(image.path)
        };
        Guest {
            append: self.kernel_command_line(given),
            machine: self.machine,
            iommu: self.iommu,
            memory: self.memory,
            accel: self.accel.resolve(),
            cpu: self.cpu.clone(),
            nets: self.net(host_port, given).into_iter().collect(),
            disks: image.map(disk).into_iter().collect(),
            functions: self.passthrough.clone(),
            debugger: if self.gdb {
                Debugger::Awaited
            } else {
                Debugger::Absent
            },
            extra: self.extra.clone(),
            ..Guest::new(kernel)
        }
    }

    /// Whether a client task drives a device and the machine has no IOMMU, so that nothing limits
    /// what the device can reach for it.
    pub fn has_unconfined_vhost(&self) -> bool {
        let has_vhost = self.blk == DataPath::Vhost || self.net.path == DataPath::Vhost;
        has_vhost && self.iommu.is_none()
    }

    /// What the options mean to the kernel, and then what the user appends: of a key that is there
    /// twice the last value counts.
    fn kernel_command_line(&self, given: &[Kind]) -> String {
        let has_address = self
            .append
            .split_whitespace()
            .any(|word| word.starts_with("ip="));
        let has_card = given.contains(&Kind::Net) || self.network(given) != &Network::None;
        let remote = match &self.disk {
            Some(DiskChoice::Remote(uri)) => format!("nbd={uri}"),
            _ => String::new(),
        };
        [
            ("ip=dhcp", has_card && !has_address),
            ("net=vhost", self.net.path == DataPath::Vhost),
            ("blk=vhost", self.blk == DataPath::Vhost),
            ("vhost.noiommu=unsafe", self.has_unconfined_vhost()),
            ("ifcvf=qemu", self.ifcvf),
            ("admin=http", self.admin),
            (&remote, !remote.is_empty()),
            (&self.append, !self.append.is_empty()),
        ]
        .iter()
        .filter_map(|(words, wanted)| wanted.then_some(*words))
        .collect::<Vec<_>>()
        .join(" ")
    }

    fn net(&self, host_port: Option<u16>, given: &[Kind]) -> Option<Net> {
        let (backend, queue_pairs) = match self.network(given) {
            Network::None => return None,
            Network::User => {
                let forwards = host_port.map(|port| (port, GUEST_HTTP_PORT));
                let forwards = forwards.into_iter().collect();
                (NetBackend::User { forwards }, 1)
            }
            Network::Tap(interface) => {
                let interface = interface.clone();
                (NetBackend::Tap { interface }, self.queues)
            }
        };
        Some(Net {
            queue_pairs,
            virtio: self.virtio(),
            ..Net::new(backend)
        })
    }

    fn virtio(&self) -> VirtioOptions {
        if self.ifcvf || self.iommu.is_some() {
            VirtioOptions::on_platform()
        } else {
            VirtioOptions::default()
        }
    }

    /// What the guest may do to its disk.
    pub fn access(&self) -> Access {
        if self.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        }
    }
}

/// The name of a processor model, maybe with features behind commas.
fn model(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("not the name of a processor model");
    }
    Ok(text.into())
}

/// Words of the kernel's command line, which is one line.
fn words(text: &str) -> Result<String, &'static str> {
    if text.contains(char::is_control) {
        return Err("the kernel's command line is one line, without control characters");
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests;
