//! The machine that is measured on: without anything that could disturb, and with a disk and two
//! cards of QEMU's that cost QEMU as little as possible.

use std::ffi::OsString;
use std::path::Path;

use super::options::Options;
use crate::accel::Accel;
use crate::guest::Guest;

/// A disk that takes every write and reads zeros.
const DISK: [&str; 4] = [
    "-drive",
    "if=none,id=null,driver=null-co,size=1G,read-zeroes=on",
    "-device",
    "virtio-blk-pci,drive=null",
];

/// Two cards on one hub. A hub with one port would never send.
const CARDS: [&str; 8] = [
    "-netdev",
    "hubport,id=port0,hubid=0",
    "-netdev",
    "hubport,id=port1,hubid=0",
    "-device",
    "virtio-net-pci,netdev=port0,romfile=,mac=52:54:00:12:34:56",
    "-device",
    "virtio-net-pci,netdev=port1,romfile=,mac=52:54:00:12:34:57",
];

/// Every instruction takes one nanosecond, and a halted processor is not waited for. (It does not
/// halt, but counts, so that what it does for a device of QEMU's is counted, too.)
const INSTRUCTION_CLOCK: [&str; 2] = ["-icount", "shift=0,sleep=off"];

/// What a boot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To measure times.
    Times,
    /// To count instructions.
    Instructions,
}

/// The machine with the kernel in it.
pub(super) fn guest(options: &Options, purpose: Purpose, kernel: &Path) -> Guest {
    let (effort, accel, cpu) = match purpose {
        Purpose::Times => (
            options.timing(),
            options.accel.resolve(),
            options.cpu.clone(),
        ),
        Purpose::Instructions => (options.counting(), Accel::Tcg, None),
    };
    let clock: &[&str] = match purpose {
        Purpose::Times => &[],
        Purpose::Instructions => &INSTRUCTION_CLOCK,
    };
    Guest {
        append: command_line(options, purpose, effort.rounds, effort.length),
        machine: options.machine,
        memory: options.memory,
        accel,
        cpu,
        extra: [&DISK[..], &CARDS, clock]
            .concat()
            .into_iter()
            .map(OsString::from)
            .collect(),
        ..Guest::new(kernel)
    }
}

/// The kernel's command line.
fn command_line(options: &Options, purpose: Purpose, rounds: u64, length: u64) -> String {
    let mut words = vec![format!("rounds={rounds}"), format!("length={length}")];
    if !options.words().is_empty() {
        words.push(format!("rows={}", options.words().join(",")));
    }
    if purpose == Purpose::Instructions {
        words.push("idle=count".into());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn line(purpose: Purpose, arguments: &[&str]) -> String {
        let options = Program::parse_from([&["bench"], arguments].concat()).options;
        guest(&options, purpose, Path::new("k")).command_line()
    }

    #[test]
    fn options_reach_the_machine() {
        let options = [
            "--memory",
            "64M",
            "--machine",
            "pc",
            "--quick",
            "iotlb",
            "/1",
        ];
        let line = line(Purpose::Times, &options);
        for part in [
            "-m 64M",
            "-machine pc",
            "-accel tcg",
            "-append 'rounds=3 length=20 rows=iotlb,/1'",
            "driver=null-co",
            "hubid=0",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("icount"), "{line}");
    }

    #[test]
    fn instructions_are_counted_by_the_translator_with_the_same_devices() {
        let line = line(Purpose::Instructions, &["--accel", "kvm", "--cpu", "host"]);
        for part in [
            "-icount 'shift=0,sleep=off'",
            "-accel tcg -cpu max",
            "idle=count'",
            "driver=null-co",
            "hubid=0",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}
