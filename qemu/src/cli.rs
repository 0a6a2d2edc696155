//! The options of `cargo run`, and the machine they describe.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use qemu::accel::AccelChoice;
use qemu::bench;
use qemu::build::Profile;
use qemu::device::{Access, Disk, Net, NetBackend};
use qemu::guest::{Debugger, Guest};
use qemu::machine::{Machine, Memory};
use qemu::network::{NetChoice, Network};
use qemu::path::DataPath;
use qemu::{port, tree};

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

    /// Raw disk image or block device to attach instead of a copy of a directory
    #[arg(long, value_name = "IMAGE")]
    pub disk: Option<PathBuf>,

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

    /// Accelerator; auto takes KVM only where the hardware for it is really there
    #[arg(long, value_enum, default_value_t)]
    pub accel: AccelChoice,

    /// Processor model of QEMU [default: max, or host under KVM]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,

    /// Network: user, none or tap=INTERFACE; and, with a comma between, who drives the card in the guest:
    /// virtio (its own driver) or vhost (a client task with the same driver)
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
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub append: String,

    /// Print the QEMU command line instead of running it; nothing is built or installed
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
}

impl Cli {
    /// Refuses what clap cannot know to be wrong.
    pub fn check(&self) -> Result<()> {
        if let Some(image) = &self.disk {
            let metadata = image
                .metadata()
                .with_context(|| format!("--disk {}", image.display()))?;
            ensure!(
                !metadata.is_dir(),
                "--disk {} is a directory; --serve takes one",
                image.display()
            );
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
            let metadata = kernel
                .metadata()
                .with_context(|| format!("--kernel {}", kernel.display()))?;
            ensure!(
                metadata.is_file(),
                "--kernel {} is not a file",
                kernel.display()
            );
        }
        if self.port.is_some() && self.net.network != Network::User {
            bail!("--port needs --net user: only that network forwards a port of this host");
        }
        Ok(())
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

    /// Where the disk comes from.
    pub fn source(&self) -> Source {
        match (&self.disk, &self.serve) {
            (Some(image), _) => Source::Image(image.clone()),
            (None, Some(directory)) => Source::Directory(directory.clone()),
            (None, None) => Source::Directory(tree::sample_site()),
        }
    }

    /// The port of this host that leads to the guest, if the network has one.
    pub fn host_port(&self) -> Result<Option<u16>> {
        match self.net.network {
            Network::User => Ok(Some(port::choose(self.port)?)),
            Network::None | Network::Tap(_) => Ok(None),
        }
    }

    /// The machine with `kernel` in it and `image` as its disk.
    pub fn guest(&self, kernel: PathBuf, image: PathBuf, host_port: Option<u16>) -> Guest {
        Guest {
            append: self.kernel_command_line(),
            machine: self.machine,
            memory: self.memory,
            accel: self.accel.resolve(),
            cpu: self.cpu.clone(),
            nets: self.net(host_port).into_iter().collect(),
            disks: vec![Disk {
                access: self.access(),
                queues: self.queues,
                ..Disk::new(image)
            }],
            debugger: if self.gdb {
                Debugger::Awaited
            } else {
                Debugger::Absent
            },
            extra: self.extra.clone(),
            ..Guest::new(kernel)
        }
    }

    /// Whether a client task drives a device. The machine has no IOMMU, so that nothing limits what the
    /// device can reach for it.
    pub fn has_vhost(&self) -> bool {
        self.blk == DataPath::Vhost || self.net.path == DataPath::Vhost
    }

    /// What the options mean to the kernel, and then what the user appends: of a key that is there twice the
    /// last value counts.
    fn kernel_command_line(&self) -> String {
        let has_address = self
            .append
            .split_whitespace()
            .any(|word| word.starts_with("ip="));
        [
            ("ip=dhcp", self.net.network != Network::None && !has_address),
            ("net=vhost", self.net.path == DataPath::Vhost),
            ("blk=vhost", self.blk == DataPath::Vhost),
            ("vhost.noiommu=unsafe", self.has_vhost()),
            ("admin=http", self.admin),
            (&self.append, !self.append.is_empty()),
        ]
        .iter()
        .filter_map(|(words, wanted)| wanted.then_some(*words))
        .collect::<Vec<_>>()
        .join(" ")
    }

    fn net(&self, host_port: Option<u16>) -> Option<Net> {
        match &self.net.network {
            Network::None => None,
            Network::User => {
                let forwards = host_port.map(|port| (port, GUEST_HTTP_PORT));
                Some(Net::new(NetBackend::User {
                    forwards: forwards.into_iter().collect(),
                }))
            }
            Network::Tap(interface) => {
                let backend = NetBackend::Tap {
                    interface: interface.clone(),
                };
                Some(Net {
                    queue_pairs: self.queues,
                    ..Net::new(backend)
                })
            }
        }
    }

    fn access(&self) -> Access {
        if self.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["qemu"], arguments].concat())
    }

    fn line(arguments: &[&str]) -> String {
        let cli = parse(&[arguments, &["--accel", "tcg"]].concat()).unwrap();
        cli.guest("k".into(), "d.img".into(), Some(8080))
            .command_line()
    }

    #[test]
    fn options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_reaches_the_machine() {
        for (arguments, part) in [
            (&["--memory", "32M"][..], "-m 32M"),
            (&["--machine", "pc"], "-machine pc"),
            (&["--cpu", "qemu64"], "-cpu qemu64"),
            (&["--read-only"], "read-only=on,file=d.img"),
            (&["--queues", "4"], "num-queues=4"),
            (
                &["--net", "tap=tap0", "--queues", "2"],
                "script=no,downscript=no,queues=2",
            ),
            (&["--gdb"], "-s -S"),
            (&["--append", "log=debug"], "-append 'ip=dhcp log=debug'"),
            (&["--append", "ip=10.0.2.9/24"], "-append 'ip=10.0.2.9/24'"),
            (
                &["--blk", "vhost"],
                "-append 'ip=dhcp blk=vhost vhost.noiommu=unsafe'",
            ),
            (
                &["--net", "vhost"],
                "-append 'ip=dhcp net=vhost vhost.noiommu=unsafe'",
            ),
            (
                &[
                    "--net",
                    "tap=tap0,vhost",
                    "--blk",
                    "vhost",
                    "--append",
                    "log=debug",
                ],
                "-append 'ip=dhcp net=vhost blk=vhost vhost.noiommu=unsafe log=debug'",
            ),
            (&["--net", "tap=tap0,vhost"], "ifname=tap0,"),
            (&["--blk", "virtio", "--net", "virtio"], "-append 'ip=dhcp'"),
            (&["--admin"], "-append 'ip=dhcp admin=http'"),
            (&["--", "-d", "int"], "-append 'ip=dhcp' -d int"),
        ] {
            // Options for QEMU come last, so the accelerator is left out of those.
            let line = match arguments {
                ["--", ..] => parse(&[&["--accel", "tcg"], arguments].concat())
                    .unwrap()
                    .guest("k".into(), "d.img".into(), Some(8080))
                    .command_line(),
                _ => line(arguments),
            };
            assert!(
                line.contains(part),
                "{arguments:?}: {part} is not in {line}"
            );
        }
    }

    #[test]
    fn no_network_means_no_card_and_no_address() {
        let line = line(&["--net", "none"]);
        assert!(!line.contains("virtio-net"), "{line}");
        assert!(!line.contains("-append"), "{line}");
    }

    #[test]
    fn vhost_is_known_to_lack_an_iommu() {
        for (arguments, expected) in [
            (&["--blk", "vhost"][..], true),
            (&["--net", "vhost"], true),
            (&["--net", "user,virtio", "--blk", "virtio"], false),
            (&[], false),
        ] {
            assert_eq!(
                parse(arguments).unwrap().has_vhost(),
                expected,
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn wrong_values_are_refused_with_the_option_named() {
        for (arguments, part) in [
            (&["--memory", "1K"][..], "not a memory size"),
            (&["--memory", "1M"], "in which no kernel boots"),
            (&["--port", "0"], "--port"),
            (&["--port", "65536"], "--port"),
            (&["--queues", "0"], "--queues"),
            (&["--queues", "65"], "--queues"),
            (&["--machine", "virt"], "--machine"),
            (&["--net", "bridge"], "write user, none or tap=INTERFACE"),
            (&["--net", "none,vhost"], "write none alone"),
            (&["--blk", "vdpa"], "--blk"),
            (&["--blk", "vdpa"], "virtio, vhost"),
            (&["--serve", "a", "--disk", "b"], "cannot be used with"),
            (&["--debug", "--release"], "cannot be used with"),
            (&["--kernel", "k", "--debug"], "cannot be used with"),
            (&["stray"], "stray"),
        ] {
            let message = parse(arguments).unwrap_err().to_string();
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn what_must_exist_is_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_str().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        for (arguments, part) in [
            (["--disk", "/no/such"], "--disk /no/such"),
            (["--disk", here], "is a directory"),
            (["--serve", "/no/such"], "--serve /no/such"),
            (["--serve", file], "is not a directory"),
            (["--kernel", "/no/such"], "--kernel /no/such"),
            (["--kernel", here], "is not a file"),
        ] {
            let message = parse(&arguments).unwrap().check().unwrap_err().to_string();
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
        parse(&["--serve", here, "--kernel", file])
            .unwrap()
            .check()
            .unwrap();
        parse(&["--disk", file]).unwrap().check().unwrap();
    }

    #[test]
    fn port_without_the_user_network_is_refused() {
        let message = parse(&["--net", "none", "--port", "80"])
            .unwrap()
            .check()
            .unwrap_err();
        assert!(message.to_string().contains("--port needs --net user"));
    }
}
