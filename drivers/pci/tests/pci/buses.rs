//! Which functions are found, and behind which bridges.

use vdpa::bus::BusDevice;

use crate::fakes::function::Builder;
use crate::fakes::machine::Machine;
use crate::fakes::tree::FakeBus;

#[test]
fn absent_functions_are_skipped() {
    let function = Builder::endpoint(0x1234, 0x5678).build();
    let machine = Machine::with_functions(&[&function]);
    assert_eq!(machine.enumerate(), 1);
    assert_eq!(machine.names(), ["pci0000:00:01.0"]);
}

#[test]
fn functions_1_to_7_are_looked_for_in_multi_function_devices_only() {
    let machine = Machine::new();
    for (device, builder) in [
        (1, Builder::endpoint(1, 1)),
        (2, Builder::endpoint(1, 1).multi_function()),
    ] {
        machine.tree.root.put(device, 0, &builder.build());
        machine
            .tree
            .root
            .put(device, 5, &Builder::endpoint(1, 2).build());
    }
    machine.enumerate();
    assert_eq!(
        machine.names(),
        ["pci0000:00:01.0", "pci0000:00:02.0", "pci0000:00:02.5"]
    );
}

#[test]
fn bridges_without_bus_numbers_get_them() {
    let (first, inner, second) = (FakeBus::new(), FakeBus::new(), FakeBus::new());
    inner.put(3, 0, &Builder::endpoint(1, 3).build());
    first.put(0, 0, &Builder::bridge(inner).build());
    second.put(4, 0, &Builder::endpoint(1, 4).build());
    let outer = Builder::bridge(first).build();
    let machine = Machine::with_functions(&[&outer, &Builder::bridge(second).build()]);
    assert_eq!(machine.enumerate(), 5);
    let names = machine.names();
    for name in ["pci0000:01:00.0", "pci0000:02:03.0", "pci0000:03:04.0"] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not in {names:?}"
        );
    }
    // Primary 0, secondary 1, subordinate 2: the inner bridge is behind the outer one.
    assert_eq!(outer.read(0x18) & 0xff_ffff, 0x02_0100);
}

#[test]
fn a_device_hangs_below_its_bridge_in_the_tree() {
    let behind = FakeBus::new();
    behind.put(7, 0, &Builder::endpoint(1, 1).build());
    let machine = Machine::with_functions(&[&Builder::bridge(behind).build()]);
    machine.enumerate();
    let path = machine.device("pci0000:01:07.0").node().path();
    assert_eq!(path, "pci0000:00:01.0 -> pci0000:01:07.0");
}

#[test]
fn bus_numbers_from_firmware_are_kept() {
    let behind = FakeBus::new();
    behind.put(0, 0, &Builder::endpoint(1, 1).build());
    let bridge = Builder::bridge(behind).set(0x18, &[0, 5, 9]).build();
    let machine = Machine::with_functions(&[&bridge]);
    machine.enumerate();
    assert_eq!(machine.names(), ["pci0000:00:01.0", "pci0000:05:00.0"]);
    assert_eq!(bridge.read(0x18) & 0xff_ffff, 0x09_0500);
}

#[test]
fn one_bad_bus_number_renumbers_all() {
    let bad: [[u8; 3]; 5] = [
        // The secondary bus is the primary one.
        [0, 0, 3],
        // The last bus comes before the first.
        [0, 3, 2],
        // It overlaps its neighbour.
        [0, 5, 6],
        // It is on another bus than it says.
        [1, 2, 3],
        // Not set at all, the neighbour is.
        [0, 0, 0],
    ];
    for numbers in bad {
        let (good_bus, bad_bus) = (FakeBus::new(), FakeBus::new());
        good_bus.put(0, 0, &Builder::endpoint(1, 1).build());
        bad_bus.put(0, 0, &Builder::endpoint(1, 2).build());
        let good = Builder::bridge(good_bus).set(0x18, &[0, 5, 9]).build();
        let bad = Builder::bridge(bad_bus).set(0x18, &numbers).build();
        let machine = Machine::with_functions(&[&good, &bad]);
        assert_eq!(machine.enumerate(), 4, "{numbers:?}");
        assert_eq!(good.read(0x18) & 0xff_ffff, 0x01_0100);
        assert_eq!(bad.read(0x18) & 0xff_ffff, 0x02_0200);
    }
}

#[test]
fn stale_numbers_do_not_answer_for_buses_given_to_others() {
    let (outer_bus, inner_bus, stale_bus) = (FakeBus::new(), FakeBus::new(), FakeBus::new());
    inner_bus.put(0, 0, &Builder::endpoint(1, 1).build());
    outer_bus.put(0, 0, &Builder::bridge(inner_bus).build());
    stale_bus.put(0, 0, &Builder::endpoint(1, 2).build());
    let outer = Builder::bridge(outer_bus).build();
    // The inner bridge gets bus 2, which this one still claims.
    let stale = Builder::bridge(stale_bus).set(0x18, &[0, 2, 3]).build();
    assert_eq!(Machine::with_functions(&[&outer, &stale]).enumerate(), 5);
    assert_eq!(stale.read(0x18) & 0xff_ffff, 0x03_0300);
}

#[test]
fn a_long_chain_of_bridges_is_cut_off() {
    let mut behind = FakeBus::new();
    for _ in 0..40 {
        let bus = FakeBus::new();
        bus.put(0, 0, &Builder::bridge(behind).build());
        behind = bus;
    }
    let machine = Machine::new();
    machine
        .tree
        .root
        .put(1, 0, &Builder::bridge(behind).build());
    let found = machine.enumerate();
    assert!((10..30).contains(&found), "{found} bridges were followed");
}

#[test]
fn bridges_beyond_the_last_bus_number_are_left_alone() {
    let machine = Machine::new();
    for device in 0..32 {
        for number in 0..8 {
            let bridge = Builder::bridge(FakeBus::new()).multi_function().build();
            machine.tree.root.put(device, number, &bridge);
        }
    }
    assert_eq!(machine.enumerate(), 256);
}
