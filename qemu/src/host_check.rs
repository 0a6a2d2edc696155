//! What a machine needs of this host, looked for before QEMU is started: QEMU would end with a
//! message of its own, or make what is missing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use thiserror::Error;

use crate::accel::Accel;
use crate::device::NetBackend;
use crate::guest::{Debugger, GDB_PORT, Guest};
use crate::machine::Memory;
use crate::port::usable;

/// Why the machine would not start.
#[derive(Debug, Error)]
pub enum HostError {
    /// No tap interface of this name.
    #[error(
        "--net tap={0}: there is no such tap interface; `ip tuntap add dev {0} mode tap` makes one, \
         with `multi_queue` behind it for --queues"
    )]
    NoTap(String),
    /// One with one queue where more are asked for, or the reverse.
    #[error(
        "--net tap={interface}: the interface was made {made} multi_queue, which does not fit --queues {queues}"
    )]
    TapQueues {
        /// The interface.
        interface: String,
        /// `with` or `without`.
        made: &'static str,
        /// What was asked for.
        queues: u16,
    },
    /// No KVM.
    #[error("--accel kvm: /dev/kvm cannot be opened ({0}); --accel tcg works everywhere")]
    NoKvm(io::Error),
    /// The host's own processor is not there for a translator.
    #[error(
        "--cpu host needs --accel kvm: there is no such model without it; max is the one with everything"
    )]
    HostCpu,
    /// No model of this name.
    #[error("--cpu {0}: QEMU has no such model; `qemu-system-x86_64 -cpu help` lists them")]
    NoCpu(String),
    /// More memory than there is.
    #[error("--memory {wanted}: this host has {there} MiB, swap included")]
    Memory {
        /// What was asked for.
        wanted: Memory,
        /// What there is.
        there: u64,
    },
    /// The debugger's port is taken.
    #[error("--gdb: port {GDB_PORT}, where QEMU waits for the debugger, is in use")]
    DebuggerPort,
}

/// Looks for it, with `/sys`, `/proc` and `/dev` below `root`.
///
/// # Errors
///
/// A [`HostError`] that names the option.
pub fn check(guest: &Guest, root: &Path) -> Result<(), HostError> {
    for net in &guest.nets {
        if let NetBackend::Tap { interface } = &net.backend {
            tap(interface, net.queue_pairs, root)?;
        }
    }
    if guest.accel == Accel::Kvm {
        let device = fs::File::options()
            .read(true)
            .write(true)
            .open(root.join("dev/kvm"));
        device.map_err(HostError::NoKvm)?;
    }
    if let Some(cpu) = &guest.cpu {
        let model = cpu.split(',').next().unwrap_or_default();
        if model == "host" && guest.accel == Accel::Tcg {
            return Err(HostError::HostCpu);
        }
        if !has_cpu(guest, model) {
            return Err(HostError::NoCpu(model.into()));
        }
    }
    let there = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| total_mib(&text));
    if let Some(there) = there.filter(|there| *there < guest.memory.bytes() >> 20) {
        let wanted = guest.memory;
        return Err(HostError::Memory { wanted, there });
    }
    if guest.debugger == Debugger::Awaited && usable(GDB_PORT).is_err() {
        return Err(HostError::DebuggerPort);
    }
    Ok(())
}

/// Whether the interface is there, is a tap, and has been made for as many queues.
fn tap(interface: &str, queues: u16, root: &Path) -> Result<(), HostError> {
    // Linux, include/uapi/linux/if_tun.h.
    const IFF_TAP: u32 = 0x2;
    const IFF_MULTI_QUEUE: u32 = 0x100;
    let networks = root.join("sys/class/net");
    if !networks.is_dir() {
        return Ok(());
    }
    let flags = fs::read_to_string(networks.join(interface).join("tun_flags")).ok();
    let flags =
        flags.and_then(|text| u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok());
    let Some(flags) = flags.filter(|flags| flags & IFF_TAP != 0) else {
        return Err(HostError::NoTap(interface.into()));
    };
    let multi_queue = flags & IFF_MULTI_QUEUE != 0;
    if multi_queue == (queues > 1) {
        return Ok(());
    }
    Err(HostError::TapQueues {
        interface: interface.into(),
        made: if multi_queue { "with" } else { "without" },
        queues,
    })
}

/// Whether QEMU lists the model. If it lists nothing that can be read, it decides itself.
fn has_cpu(guest: &Guest, model: &str) -> bool {
    let listed = Command::new(&guest.emulator)
        .args(["-machine", guest.machine.argument(), "-cpu", "help"])
        .stdin(Stdio::null())
        .output();
    let Ok(listed) = listed else {
        return true;
    };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut models = text.lines().filter_map(|line| {
        let line = line.strip_prefix("x86 ").unwrap_or(line);
        line.split_whitespace().next()
    });
    !text.contains("qemu64") || models.any(|listed| listed == model)
}

/// Memory and swap, as `/proc/meminfo` has them in KiB.
fn total_mib(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let swap = kib("SwapTotal:").unwrap_or(0);
    Some(kib("MemTotal:")?.saturating_add(swap) >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Net;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    /// A host with two taps, a bridge, no KVM and a gigabyte of memory, and a QEMU that knows two
    /// models.
    fn host() -> (TempDir, Guest) {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/net/tap0/tun_flags", "0x1002\n");
        write("sys/class/net/tap1/tun_flags", "0x1102\n");
        write("sys/class/net/tun0/tun_flags", "0x1001\n");
        write("sys/class/net/br0/mtu", "1500\n");
        write(
            "proc/meminfo",
            "MemTotal:  1000000 kB\nSwapTotal:  48576 kB\n",
        );
        write(
            "qemu",
            "#!/bin/sh\necho 'Available CPUs:'; echo 'x86 max   (all)'; echo '  qemu64  (v1)'\n",
        );
        let emulator = root.path().join("qemu");
        fs::set_permissions(&emulator, fs::Permissions::from_mode(0o755)).unwrap();
        let guest = Guest {
            emulator,
            ..Guest::new("k")
        };
        (root, guest)
    }

    #[test]
    fn what_the_host_lacks_is_told_with_the_option() {
        let tap = |interface: &str, queues| {
            let interface = interface.to_string();
            vec![Net {
                queue_pairs: queues,
                ..Net::new(NetBackend::Tap { interface })
            }]
        };
        let (root, guest) = host();
        let with = |change: &dyn Fn(&mut Guest)| {
            let mut guest = guest.clone();
            change(&mut guest);
            check(&guest, root.path()).map_err(|error| error.to_string())
        };
        for (change, part) in [
            (
                &(|guest: &mut Guest| guest.nets = tap("tap9", 1)) as &dyn Fn(&mut Guest),
                "no such tap interface",
            ),
            (&|guest| guest.nets = tap("br0", 1), "no such tap interface"),
            (
                &|guest| guest.nets = tap("tun0", 1),
                "no such tap interface",
            ),
            (&|guest| guest.nets = tap("tap0", 2), "without multi_queue"),
            (&|guest| guest.nets = tap("tap1", 1), "with multi_queue"),
            (&|guest| guest.accel = Accel::Kvm, "--accel kvm: /dev/kvm"),
            (&|guest| guest.cpu = Some("host".into()), "--cpu host needs"),
            (
                &|guest| guest.cpu = Some("nonsense,+avx".into()),
                "--cpu nonsense: QEMU has no such model",
            ),
            (
                &|guest| guest.memory = Memory::from_mib(1 << 20).unwrap(),
                "this host has 1024 MiB",
            ),
        ] {
            let error = with(change).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
        for change in [
            &(|_: &mut Guest| ()) as &dyn Fn(&mut Guest),
            &|guest| guest.nets = tap("tap0", 1),
            &|guest| guest.nets = tap("tap1", 2),
            &|guest| guest.cpu = Some("qemu64,-apic".into()),
            &|guest| guest.memory = Memory::from_mib(1024).unwrap(),
        ] {
            with(change).unwrap();
        }
    }
}
