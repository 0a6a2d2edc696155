//! Machines that differ from the usual one: what they have more, what they lack, and what is wrong
//! with them.
//!
//! Each boots the default unikernel, which must find its network card, or end with a word why not.

mod many;

use std::path::Path;
use std::time::{Duration, Instant};

use qemu::build::Profile;
use qemu::device::{Net, NetBackend};
use qemu::guest::Guest;
use qemu::machine::Machine;
use qemu::running::Running;
use tests::kernels;
use tests::run::{Run, boot};
use tests::transcript::{End, excerpt};

system_tests![
    a_register_beyond_the_processors_addresses_is_left_off,
    cards_on_root_buses_without_a_bridge_are_found,
    processors_that_cannot_run_the_kernel_end_with_a_word,
    any_number_of_processors_may_be_there,
    a_microvm_serves_with_devices_in_memory_and_on_pci,
    a_microvm_finds_its_devices_by_the_words_of_the_command_line_too,
    without_a_serial_port_the_console_is_on_the_debug_port,
    the_command_line_says_where_pci_configuration_space_is,
    an_interface_from_before_virtio_1_is_refused_with_a_word,
    clocks_may_be_missing,
];

/// A machine that has not said what it must by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the kernel ends when it cannot go on.
const PANICKED: u8 = 101;

fn kernel() -> std::path::PathBuf {
    kernels::build("site", Profile::Compact).expect("the site builds")
}

/// The usual machine, with a card of QEMU's user network.
fn usual(kernel: &Path, machine: Machine) -> Guest {
    Guest {
        machine,
        nets: vec![card()],
        append: "ip=dhcp log=debug".into(),
        ..Guest::new(kernel)
    }
}

fn card() -> Net {
    Net::new(NetBackend::User {
        forwards: Vec::new(),
    })
}

/// A machine whose only card sits where these words put it, as `CARD`.
fn with_card(kernel: &Path, machine: Machine, words: &str) -> Guest {
    let words =
        format!("-netdev user,id=n {words}").replace("CARD", "virtio-net-pci,netdev=n,romfile=");
    Guest {
        nets: Vec::new(),
        extra: words.split_whitespace().map(Into::into).collect(),
        ..usual(kernel, machine)
    }
}

/// Boots and waits for each of the texts in turn.
#[track_caller]
fn assert_says(guest: &Guest, texts: &[&str]) -> Running {
    assert_says_within(PATIENCE, guest, texts)
}

#[track_caller]
fn assert_says_within(patience: Duration, guest: &Guest, texts: &[&str]) -> Running {
    let mut machine = guest.spawn().unwrap();
    for text in texts {
        if let Err(error) = machine.wait_for(text, Instant::now() + patience) {
            let console = excerpt(machine.console());
            panic!("{error}: {text:?}\n{}{console}", guest.command_line());
        }
    }
    machine
}

/// Boots a machine that must end as after a panic, and say why.
#[track_caller]
fn assert_gives_up(guest: &Guest, reason: &str) {
    let Run { console, end } = boot(guest, PATIENCE).unwrap();
    let said = console.iter().any(|line| line.contains(reason));
    let console = excerpt(&console);
    assert!(
        said && end == End::Code(PANICKED),
        "{end:?}, {reason:?}{console}"
    );
}

const CARD: &str = "net0 on virtio";
const ADDRESS: &str = "net0: 10.0.2.15/24 by DHCP";

fn a_register_beyond_the_processors_addresses_is_left_off() {
    let kernel = kernel();
    for machine in [Machine::Q35, Machine::Pc] {
        for size in ["1T", "64T", "4E", "8E"] {
            let words = format!("-device CARD -device pci-testdev,membar={size}");
            let guest = with_card(&kernel, machine, &words);
            assert_says(&guest, &["no room for BAR 2", CARD]);
        }
        let beside = "-device pci-bridge,id=b,chassis_nr=1 -device CARD,bus=b,addr=1 \
             -device pci-testdev,membar=1T,bus=b,addr=2";
        assert_says(
            &with_card(&kernel, machine, beside),
            &["no room for BAR 2", CARD],
        );
        let fits = "-device CARD -device pci-testdev,membar=16G";
        assert_says(&with_card(&kernel, machine, fits), &[CARD, ADDRESS]);
    }
}

fn cards_on_root_buses_without_a_bridge_are_found() {
    let kernel = kernel();
    let express = "-device pxb-pcie,id=px,bus_nr=128 -device pcie-root-port,id=r1,bus=px,chassis=1 \
         -device CARD,bus=r1";
    let conventional = "-device pxb,id=px,bus_nr=128 -device CARD,bus=px,addr=1";
    let several = "-device pxb-pcie,id=p1,bus_nr=250,bus=pcie.0 \
         -device pxb-pcie,id=p2,bus_nr=100,bus=pcie.0 \
         -device pcie-root-port,id=r1,bus=p1,chassis=1 -device pcie-root-port,id=r2,bus=p2,chassis=2 \
         -device CARD,bus=r1 -device virtio-balloon-pci,bus=r2";
    for (machine, words) in [
        (Machine::Q35, express),
        (Machine::Q35, several),
        (Machine::Pc, conventional),
    ] {
        assert_says(&with_card(&kernel, machine, words), &[CARD, ADDRESS]);
    }
}

fn processors_that_cannot_run_the_kernel_end_with_a_word() {
    let kernel = kernel();
    for (cpu, reason) in [
        ("486", "no long mode"),
        ("pentium", "no long mode"),
        ("qemu32", "no long mode"),
        ("max,-lm", "no long mode"),
        ("qemu64,-nx", "cannot forbid execution"),
        ("max,-apic", "no local APIC"),
    ] {
        for machine in [Machine::Q35, Machine::Pc] {
            let guest = Guest {
                cpu: Some(cpu.into()),
                ..usual(&kernel, machine)
            };
            assert_gives_up(&guest, reason);
        }
    }
}

fn any_number_of_processors_may_be_there() {
    let kernel = kernel();
    for count in [1, 2, 7, 64] {
        let mut guest = usual(&kernel, Machine::Q35);
        let processors = format!("cpus={count},maxcpus={count}");
        guest.extra.extend(["-smp".into(), processors.into()]);
        assert_says(&guest, &[CARD, ADDRESS]);
    }
}

/// The words for a machine without what its board usually has, in every combination that makes a
/// difference.
const BARE: [&str; 3] = [
    "",
    ",rtc=off,pit=off,pic=off",
    ",acpi=off,rtc=off,pit=off,pic=off",
];

fn a_microvm_serves_with_devices_in_memory_and_on_pci() {
    let kernel = kernel();
    for (machine, words) in [
        (Machine::Microvm, "virtio_mmio feb0"),
        (Machine::MicrovmPcie, "vp_vdpa"),
    ] {
        for options in BARE {
            // QEMU has PCI on this board with ACPI alone.
            if machine == Machine::MicrovmPcie && options.contains("acpi=off") {
                continue;
            }
            let mut guest = usual(&kernel, machine);
            let argument = format!("{}{options}", machine.argument());
            guest.extra.extend(["-machine".into(), argument.into()]);
            assert_says(&guest, &[words, CARD, ADDRESS]);
        }
    }
}

fn a_microvm_finds_its_devices_by_the_words_of_the_command_line_too() {
    let kernel = kernel();
    let mut guest = usual(&kernel, Machine::Microvm);
    let off = "microvm,acpi=off,auto-kernel-cmdline=off";
    guest.extra.extend(["-machine", off].map(Into::into));
    guest.append += " virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00e00:12:0 \
         virtio_mmio.device=nonsense virtio_mmio.device=4K@0x1000000:5";
    let refused = "virtio_mmio.device=nonsense: not <size>@<address>:<interrupt>";
    assert_says(&guest, &[CARD, ADDRESS]);
    let machine = assert_says(
        &guest,
        &[
            refused,
            "virtio_mmio 1000000: the registers cannot be mapped",
        ],
    );
    drop(machine);
}

fn without_a_serial_port_the_console_is_on_the_debug_port() {
    let kernel = kernel();
    // The second one does not say that it is there: Cloud Hypervisor's does not answer either.
    for port in ["iobase=0xe9", "iobase=0xe9,readback=0"] {
        let mut guest = usual(&kernel, Machine::Microvm);
        let words = "-machine microvm,isa-serial=off -device";
        guest.extra.extend(words.split_whitespace().map(Into::into));
        guest
            .extra
            .push(format!("isa-debugcon,chardev=console,{port}").into());
        assert_says(&guest, &[CARD, ADDRESS]);
    }
}

fn the_command_line_says_where_pci_configuration_space_is() {
    let kernel = kernel();
    let mut guest = usual(&kernel, Machine::MicrovmPcie);
    guest.append += " pci.ecam=0xe0000000";
    assert_says(&guest, &[CARD, ADDRESS]);
    for bad in [
        "nonsense",
        "0xe0000001",
        "0",
        "0x",
        "0xffffffffffffffffffff",
    ] {
        guest.append += &format!(" pci.ecam={bad}");
        assert_says(&guest, &["not an address of whole MiB", CARD]);
    }
    // Nothing is there, and nobody faults.
    for far in ["0xfffffffffff00000", "0x10000000000", "0x100000"] {
        guest.append += &format!(" pci.ecam={far}");
        assert_says(&guest, &["there is no network interface"]);
    }
}

fn an_interface_from_before_virtio_1_is_refused_with_a_word() {
    let kernel = kernel();
    let mut guest = usual(&kernel, Machine::Microvm);
    guest
        .extra
        .extend(["-global", "virtio-mmio.force-legacy=true"].map(Into::into));
    assert_says(
        &guest,
        &["only the interface from before VIRTIO 1.0 is offered"],
    );
}

fn clocks_may_be_missing() {
    let kernel = kernel();
    for (options, cpu, source) in [
        ("hpet=off", "max", "measured by the local APIC"),
        ("hpet=off,pit=off", "max", "measured by the local APIC"),
        ("hpet=off", "max,-hypervisor", "measured by the ACPI timer"),
        (
            "microvm,pit=on",
            "max,-hypervisor",
            "measured by the interval timer",
        ),
        (
            "microvm,pit=off,pic=off,rtc=off",
            "max,-hypervisor",
            "guessed",
        ),
    ] {
        let board = match options.starts_with("microvm") {
            true => Machine::Microvm,
            false => Machine::Q35,
        };
        let mut guest = usual(&kernel, board);
        guest.cpu = Some(cpu.into());
        guest.extra.extend(["-machine", options].map(Into::into));
        assert_says(&guest, &[source, CARD, ADDRESS]);
    }
}
