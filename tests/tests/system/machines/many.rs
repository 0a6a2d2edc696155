//! Two hundred disks and ten network cards: as many functions as there are interrupt vectors for,
//! and more.

use std::time::{Duration, Instant};

use qemu::guest::Guest;
use qemu::machine::{Machine, Memory};

use super::{ADDRESS, assert_says_within, kernel, usual};

system_tests![two_hundred_disks_and_ten_cards_are_all_there,];

/// QEMU draws its map of memory anew for each function at each change of a register: some ten
/// seconds on an idle host.
const PATIENCE: Duration = Duration::from_secs(600);
/// Two hundred disks have two hundred queues, with a request's memory for each of their entries.
const MIB: u32 = 256;

/// An answer of the console takes a moment.
const ANSWER: Duration = Duration::from_secs(30);

const DISKS: usize = 200;
const CARDS: usize = 10;
/// Functions of one slot.
const FUNCTIONS: usize = 8;
/// Slots of the root bus that are full of disks.
const SLOTS: usize = 12;

/// Half of the disks share slots of the root bus, the others sit behind root ports, and the cards
/// behind a bridge.
fn many() -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.into(), value]);
    for disk in 0..DISKS {
        let drive = format!("if=none,driver=null-co,size=1M,read-zeroes=on,id=d{disk}");
        add("-drive", drive);
        let (slot, function) = (disk / FUNCTIONS, disk % FUNCTIONS);
        let place = if slot < SLOTS {
            format!("addr={:x}.{function}", 1 + slot)
        } else {
            if function == 0 {
                let port = slot - SLOTS;
                let (ports, port) = (0xe + port / FUNCTIONS, port % FUNCTIONS);
                let port = format!(
                    "pcie-root-port,id=r{slot},chassis={slot},addr={ports:x}.{port},multifunction=on"
                );
                add("-device", port);
            }
            format!("bus=r{slot},addr=0.{function}")
        };
        let disk = format!("virtio-blk-pci,drive=d{disk},{place},multifunction=on");
        add("-device", disk);
    }
    add("-device", "pcie-pci-bridge,id=b,addr=1a".into());
    for card in 0..CARDS {
        add("-netdev", format!("user,id=n{card}"));
        let slot = card + 1;
        let card = format!("virtio-net-pci,netdev=n{card},bus=b,addr={slot:x},romfile=");
        add("-device", card);
    }
    words
}

fn two_hundred_disks_and_ten_cards_are_all_there() {
    let kernel = kernel();
    let guest = Guest {
        nets: Vec::new(),
        memory: Memory::from_mib(MIB).unwrap(),
        extra: many().into_iter().map(Into::into).collect(),
        ..usual(&kernel, Machine::Q35)
    };
    let mut machine = assert_says_within(PATIENCE, &guest, &[ADDRESS]);
    let missing: Vec<String> = (0..DISKS)
        .map(|disk| format!("blk{disk} on virtio"))
        .chain((0..CARDS).map(|card| format!("net{card} on virtio")))
        .filter(|words| !machine.console().iter().any(|line| line.contains(words)))
        .collect();
    assert!(missing.is_empty(), "nothing is said of {missing:?}");
    // The console's line has a vector all the same.
    machine.type_line("vdpa mgmtdev show").unwrap();
    let answer = machine.wait_for("vdpasim_net: ", Instant::now() + ANSWER);
    answer.expect("the console answers");
}
