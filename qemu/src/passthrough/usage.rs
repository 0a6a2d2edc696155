//! What the host itself does with a function: network interfaces and disks that would go with it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::function::folder;
use super::host::Host;

/// A use that ends when the function goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// An interface is up and has an address or a route.
    Interface(String),
    /// An interface belongs to a bridge, bond or team.
    Port(String),
    /// A disk or a partition is mounted.
    Mounted {
        /// Its name below `/dev`.
        disk: String,
        /// Where.
        at: String,
    },
    /// A disk or a partition is swapped to.
    Swap(String),
    /// A disk or a partition is part of another: device mapper or RAID.
    Part(String),
}

/// Every use that the host makes of the function at `address`.
pub fn uses(host: &Host, address: Address) -> Vec<Use> {
    let Ok(function) = fs::canonicalize(host.path(&folder(address))) else {
        return Vec::new();
    };
    let interfaces = below(host, "net", &function);
    let disks = below(host, "block", &function);
    interfaces
        .into_iter()
        .flat_map(|name| of_interface(host, name))
        .chain(disks.into_iter().flat_map(|name| of_disk(host, &name)))
        .collect()
}

/// The devices of a class that are below `function` in the tree of devices.
fn below(host: &Host, class: &str, function: &Path) -> Vec<String> {
    let folder = format!("sys/class/{class}");
    let device = |name: &String| -> Option<PathBuf> {
        fs::canonicalize(host.path(&format!("{folder}/{name}"))).ok()
    };
    let mut names = host.names(&folder);
    names.retain(|name| device(name).is_some_and(|path| path.starts_with(function)));
    names
}

fn of_interface(host: &Host, name: String) -> Option<Use> {
    /// `IFF_UP` of `netdevice(7)`.
    const UP: u32 = 1;
    if host.exists(&format!("sys/class/net/{name}/master")) {
        return Some(Use::Port(name));
    }
    let flags = host.text(&format!("sys/class/net/{name}/flags"))?;
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
    let used = flags & UP != 0 && (has_route(host, &name) || has_address(host, &name));
    used.then_some(Use::Interface(name))
}

/// Whether IPv4 has a route over the interface: one to its own network comes with each address.
fn has_route(host: &Host, name: &str) -> bool {
    let routes = host.text("proc/net/route").unwrap_or_default();
    routes
        .lines()
        .any(|line| line.split_whitespace().next() == Some(name))
}

/// Whether the interface has an IPv6 address that it has not given itself.
fn has_address(host: &Host, name: &str) -> bool {
    /// `IPV6_ADDR_LINKLOCAL` in the column of scopes.
    const LINK_LOCAL: &str = "20";
    let addresses = host.text("proc/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| {
        let mut words = line.split_whitespace();
        let scope = words.nth(3);
        scope != Some(LINK_LOCAL) && words.nth(1) == Some(name)
    })
}

fn of_disk(host: &Host, name: &str) -> Vec<Use> {
    let folder = format!("sys/class/block/{name}");
    let device = format!("/dev/{name}");
    let number = host.text(&format!("{folder}/dev"));
    let mounts = host.text("proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| {
        // proc_pid_mountinfo(5): the third field is the device's number; of the file systems that
        // hide it behind one of their own, the second behind the dash is its name.
        let mut words = line.split(' ');
        let (found, at) = (words.nth(2)?, words.nth(1)?);
        let source = line
            .split_once(" - ")
            .and_then(|(_, fs)| fs.split(' ').nth(1));
        let is_ours = Some(found) == number.as_deref() || source == Some(&device);
        is_ours.then(|| Use::Mounted {
            disk: name.into(),
            at: at.into(),
        })
    });
    let swaps = host.text("proc/swaps").unwrap_or_default();
    let swapped = swaps
        .lines()
        .any(|line| line.split_whitespace().next() == Some(&device));
    let is_part = !host.names(&format!("{folder}/holders")).is_empty();
    [
        mounted,
        swapped.then(|| Use::Swap(name.into())),
        is_part.then(|| Use::Part(name.into())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name} is up and has an address"),
            Self::Port(name) => write!(f, "interface {name} belongs to a bridge or bond"),
            Self::Mounted { disk, at } => write!(f, "{disk} is mounted on {at}"),
            Self::Swap(disk) => write!(f, "{disk} is swapped to"),
            Self::Part(disk) => write!(f, "{disk} is part of a RAID or of device mapper"),
        }
    }
}
