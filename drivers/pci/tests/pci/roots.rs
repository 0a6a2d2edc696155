//! Root buses to which no bridge leads.

use std::sync::atomic::Ordering;

use crate::fakes::function::{BarType, Builder};
use crate::fakes::machine::{MEM32, Machine};
use crate::fakes::tree::FakeBus;

fn endpoint(device: u16) -> Builder {
    Builder::endpoint(1, device).bar(0, 0x1000, BarType::Memory32)
}

/// A machine with a function on bus 0 and a root bus with this number.
fn with_root(number: u8) -> (Machine, std::sync::Arc<FakeBus>) {
    let machine = Machine::with_functions(&[&endpoint(1).build()]);
    let bus = machine.tree.add_root(number);
    (machine, bus)
}

#[test]
fn what_is_on_another_root_bus_and_behind_its_bridges_is_found() {
    let (machine, bus) = with_root(128);
    let behind = FakeBus::new();
    let (beside, far) = (endpoint(2).build(), endpoint(3).build());
    behind.put(0, 0, &far);
    let port = Builder::bridge(behind).set(0x18, &[128, 129, 129]);
    bus.put(0, 0, &port.build());
    bus.put(1, 0, &beside);
    assert_eq!(machine.enumerate_all(), 4);
    assert_eq!(
        machine.names(),
        [
            "pci0000:00:01.0",
            "pci0000:80:00.0",
            "pci0000:80:01.0",
            "pci0000:81:00.0"
        ]
    );
    // One host has one memory: the addresses behind all its roots are apart.
    for function in [beside, far] {
        let address = function.bar_address(0).unwrap();
        assert!(
            MEM32.contains(&address) && address != MEM32.start,
            "{address:#x}"
        );
    }
}

#[test]
fn nobody_looks_for_other_roots_unasked() {
    let (machine, bus) = with_root(128);
    bus.put(0, 0, &endpoint(2).build());
    assert_eq!(machine.enumerate(), 1);
}

#[test]
fn without_numbers_from_firmware_each_root_numbers_what_is_before_the_next() {
    let (machine, bus) = with_root(3);
    let (first, last, other) = (FakeBus::new(), FakeBus::new(), FakeBus::new());
    first.put(0, 0, &endpoint(2).build());
    last.put(0, 0, &endpoint(3).build());
    other.put(0, 0, &endpoint(4).build());
    machine.tree.root.put(2, 0, &Builder::bridge(first).build());
    machine.tree.root.put(3, 0, &Builder::bridge(last).build());
    bus.put(0, 0, &Builder::bridge(other).build());
    assert_eq!(machine.enumerate_all(), 7);
    let names = machine.names();
    for name in [
        "pci0000:01:00.0",
        "pci0000:02:00.0",
        "pci0000:03:00.0",
        "pci0000:04:00.0",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not in {names:?}"
        );
    }
}

#[test]
fn stale_numbers_on_another_root_renumber_all() {
    let (machine, bus) = with_root(128);
    let (behind, stale) = (FakeBus::new(), FakeBus::new());
    behind.put(0, 0, &endpoint(2).build());
    stale.put(0, 0, &endpoint(3).build());
    let kept = Builder::bridge(behind).set(0x18, &[0, 5, 9]).build();
    machine.tree.root.put(2, 0, &kept);
    // It claims a bus that lies before its own.
    bus.put(
        0,
        0,
        &Builder::bridge(stale).set(0x18, &[128, 20, 21]).build(),
    );
    assert_eq!(machine.enumerate_all(), 5);
    assert_eq!(kept.read(0x18) & 0xff_ffff, 0x01_0100);
    let names = machine.names();
    assert!(names.contains(&"pci0000:81:00.0".into()), "{names:?}");
}

#[test]
fn a_machine_that_ignores_bus_numbers_has_one_bus() {
    let machine = Machine::with_functions(&[&endpoint(1).build(), &endpoint(2).build()]);
    machine.tree.is_deaf_to_buses.store(true, Ordering::Relaxed);
    assert_eq!(machine.enumerate_all(), 2);
}

#[test]
fn absurdly_many_root_buses_are_cut_off() {
    let machine = Machine::with_functions(&[&endpoint(1).build()]);
    for number in 1..=255 {
        let bus = machine.tree.add_root(number);
        bus.put(0, 0, &endpoint(u16::from(number) + 1).build());
    }
    assert_eq!(machine.enumerate_all(), 32);
}
