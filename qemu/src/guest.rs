//! A whole virtual machine, described by types, and the QEMU command line that makes it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::accel::Accel;
use crate::device::{Disk, Net};
use crate::exit::DEBUG_EXIT_PORT;
use crate::iommu::{Behind, Iommu};
use crate::machine::{Machine, Memory};
use crate::passthrough::address::Address;

/// The emulator this crate drives.
pub const QEMU: &str = "qemu-system-x86_64";

/// The port QEMU's `-s` listens on for a debugger.
pub const GDB_PORT: u16 = 1234;

/// Whether the machine waits for a debugger before its first instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Debugger {
    /// It starts at once.
    #[default]
    Absent,
    /// It waits for one.
    Awaited,
}

/// A virtual machine to be. Its fields are public; [`Guest::new`] gives the usual ones.
#[derive(Clone, Debug)]
pub struct Guest {
    /// An ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The kernel's command line.
    pub append: String,
    /// The board.
    pub machine: Machine,
    /// What stands between the devices and the memory.
    pub iommu: Option<Iommu>,
    /// Its memory.
    pub memory: Memory,
    /// What runs its instructions.
    pub accel: Accel,
    /// A processor model of QEMU; `None` takes the accelerator's.
    pub cpu: Option<String>,
    /// Network cards, in the order of their slots.
    pub nets: Vec<Net>,
    /// Disks, in the order of their slots after the cards.
    pub disks: Vec<Disk>,
    /// Functions of the host, in the order of their slots after the disks.
    pub functions: Vec<Address>,
    /// Whether a debugger is waited for.
    pub debugger: Debugger,
    /// The emulator: a name on the path, or a path.
    pub emulator: PathBuf,
    /// Arguments passed on to QEMU as they are, after all others.
    pub extra: Vec<OsString>,
}

impl Guest {
    /// A q35 machine of 128 MiB without disks and cards that boots `kernel` under the translator.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            append: String::new(),
            machine: Machine::default(),
            iommu: None,
            memory: Memory::default(),
            accel: Accel::default(),
            cpu: None,
            nets: Vec::new(),
            disks: Vec::new(),
            functions: Vec::new(),
            debugger: Debugger::default(),
            emulator: QEMU.into(),
            extra: Vec::new(),
        }
    }

    /// The arguments for QEMU. The console is QEMU's standard input and output.
    pub fn arguments(&self) -> Vec<OsString> {
        let iommu_options = self
            .iommu
            .map_or("", |iommu| iommu.machine_options(self.accel));
        let mut arguments: Vec<OsString> = [
            "-no-user-config",
            "-nodefaults",
            "-display",
            "none",
            "-vga",
            "none",
            "-no-reboot",
            "-machine",
            &format!("{}{iommu_options}", self.machine.argument()),
            "-accel",
            &self.accel.to_string(),
            "-cpu",
            self.cpu.as_deref().unwrap_or(self.accel.default_cpu()),
            "-smp",
            // With room for a second processor QEMU's translator keeps memory barriers. Without, it
            // drops them (seen in 7.2), and a device thread and the guest miss each other's
            // notices.
            "cpus=1,maxcpus=2",
            "-m",
            &self.memory.to_string(),
            // Signals stay signals: Ctrl-C ends QEMU instead of reaching the guest as a byte.
            "-chardev",
            "stdio,id=console,signal=on",
            "-serial",
            "chardev:console",
            "-device",
            &format!("isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=0x4"),
        ]
        .map(OsString::from)
        .into();
        if let Some(iommu) = self.iommu {
            let behind = if self.functions.is_empty() {
                Behind::Emulated
            } else {
                Behind::Functions
            };
            arguments.extend(["-device", iommu.device(behind)].map(OsString::from));
        }
        let transport = self.machine.transport();
        arguments.extend(transport.arguments().iter().map(OsString::from));
        for (index, net) in self.nets.iter().enumerate() {
            arguments.extend(net.arguments(index, transport).map(OsString::from));
        }
        for (index, disk) in self.disks.iter().enumerate() {
            arguments.extend(disk.arguments(index, transport).map(OsString::from));
        }
        for address in &self.functions {
            // Without its boot ROM, which nobody here would run.
            let function = format!("vfio-pci,host={address},romfile=");
            arguments.extend(["-device".into(), OsString::from(function)]);
        }
        arguments.extend(["-kernel".into(), self.kernel.clone().into_os_string()]);
        if !self.append.is_empty() {
            arguments.extend(["-append".into(), OsString::from(&self.append)]);
        }
        if self.debugger == Debugger::Awaited {
            arguments.extend(["-s", "-S"].map(OsString::from));
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// The command that runs the machine.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.emulator);
        command.args(self.arguments());
        command
    }

    /// The command as a line for a shell.
    pub fn command_line(&self) -> String {
        let mut words = vec![OsString::from(&self.emulator)];
        words.extend(self.arguments());
        shell_words::join(words.iter().map(|word| word.to_string_lossy()))
    }

    /// The line that connects a debugger to the waiting machine.
    pub fn debugger_line(&self) -> String {
        let kernel = self.kernel.to_string_lossy();
        let kernel = shell_words::quote(&kernel);
        format!("gdb {kernel} -ex 'target remote localhost:{GDB_PORT}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{NetBackend, Switch, VirtioOptions};
    use crate::format::Access;

    fn words(guest: &Guest) -> Vec<String> {
        guest
            .arguments()
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn whole_command_line_of_the_usual_machine() {
        let guest = Guest {
            append: "ip=dhcp log=info".into(),
            nets: vec![Net::new(NetBackend::User {
                forwards: vec![(8080, 80)],
            })],
            disks: vec![Disk {
                access: Access::ReadOnly,
                ..Disk::new("/tmp/my disk.img")
            }],
            ..Guest::new("target/site")
        };
        assert_eq!(
            guest.command_line(),
            "qemu-system-x86_64 -no-user-config -nodefaults -display none -vga none -no-reboot \
             -machine q35 -accel tcg -cpu max -smp 'cpus=1,maxcpus=2' -m 128M -chardev 'stdio,id=console,signal=on' \
             -serial chardev:console -device 'isa-debug-exit,iobase=0xf4,iosize=0x4' \
             -netdev 'user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80' \
             -device 'virtio-net-pci,netdev=net0,romfile=' \
             -drive 'if=none,id=disk0,format=raw,read-only=on,file=/tmp/my disk.img' \
             -device 'virtio-blk-pci,drive=disk0,num-queues=1' \
             -kernel target/site -append 'ip=dhcp log=info'"
        );
    }

    #[test]
    fn machine_memory_processor_and_accelerator_are_passed_on() {
        let guest = Guest {
            machine: Machine::MicrovmPcie,
            memory: Memory::from_mib(32).unwrap(),
            accel: Accel::Kvm,
            cpu: Some("EPYC".into()),
            ..Guest::new("k")
        };
        let line = words(&guest).join(" ");
        for part in [
            "-machine microvm,pcie=on",
            "-m 32M",
            "-accel kvm",
            "-cpu EPYC",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn devices_are_numbered_and_keep_their_own_options() {
        let quiet = VirtioOptions {
            event_idx: Some(Switch::Off),
            ..VirtioOptions::default()
        };
        let guest = Guest {
            disks: vec![
                Disk {
                    virtio: quiet,
                    ..Disk::new("a")
                },
                Disk::new("b"),
            ],
            ..Guest::new("k")
        };
        let words = words(&guest);
        assert!(words.contains(&"virtio-blk-pci,drive=disk0,num-queues=1,event_idx=off".into()));
        assert!(words.contains(&"virtio-blk-pci,drive=disk1,num-queues=1".into()));
    }

    #[test]
    fn an_iommu_comes_before_the_devices() {
        for (iommu, accel, functions, machine, device) in [
            (
                Iommu::Intel,
                Accel::Tcg,
                vec![],
                "q35",
                "intel-iommu,intremap=on,aw-bits=48",
            ),
            (
                Iommu::Intel,
                Accel::Kvm,
                vec!["3b:00.2".parse().unwrap()],
                "q35,kernel-irqchip=split",
                "intel-iommu,intremap=on,aw-bits=48,caching-mode=on",
            ),
            (
                Iommu::Amd,
                Accel::Tcg,
                vec![],
                "q35",
                "amd-iommu,intremap=on",
            ),
            (Iommu::Virtio, Accel::Kvm, vec![], "q35", "virtio-iommu-pci"),
        ] {
            let guest = Guest {
                iommu: Some(iommu),
                accel,
                functions,
                nets: vec![Net::new(NetBackend::User { forwards: vec![] })],
                ..Guest::new("k")
            };
            let words = words(&guest);
            let place = |word: &str| words.iter().position(|other| other.starts_with(word));
            assert!(words.contains(&machine.into()), "{words:?}");
            assert!(words.contains(&device.into()), "{words:?}");
            assert!(place(device) < place("virtio-net-pci"));
        }
    }

    #[test]
    fn functions_of_the_host_come_after_the_disks_in_their_order() {
        let functions = ["3b:00.2", "0001:5e:1f.7"].map(|address| address.parse().unwrap());
        let guest = Guest {
            disks: vec![Disk::new("d")],
            functions: functions.into(),
            ..Guest::new("k")
        };
        let words = words(&guest);
        assert_eq!(
            words[words.len() - 8..],
            [
                "-device",
                "virtio-blk-pci,drive=disk0,num-queues=1",
                "-device",
                "vfio-pci,host=0000:3b:00.2,romfile=",
                "-device",
                "vfio-pci,host=0001:5e:1f.7,romfile=",
                "-kernel",
                "k"
            ]
        );
    }

    #[test]
    fn debugger_is_waited_for_and_extra_arguments_come_last() {
        let guest = Guest {
            debugger: Debugger::Awaited,
            extra: vec!["-d".into(), "int".into()],
            ..Guest::new("/k k/site")
        };
        let words = words(&guest);
        assert_eq!(words[words.len() - 4..], ["-s", "-S", "-d", "int"]);
        assert_eq!(
            guest.debugger_line(),
            "gdb '/k k/site' -ex 'target remote localhost:1234'"
        );
    }
}
