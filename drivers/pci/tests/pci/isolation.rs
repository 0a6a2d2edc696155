//! Which functions share an isolation unit.

use std::sync::Arc;
use std::time::Duration;

use pci::{PortDriver, SrIov};
use vdpa::Platform;
use vdpa::bus::BusDevice;
use vdpa::dma::IsolationUnit;

use crate::fakes::function::{Builder, FakeFunction};
use crate::fakes::machine::Machine;
use crate::fakes::port::{Card, FakePort};
use crate::fakes::sriov::{FakeSriov, SriovPlan};
use crate::fakes::tree::FakeBus;

const ENDPOINT: u8 = 0;
const ROOT_PORT: u8 = 4;
const UPSTREAM: u8 = 5;
const DOWNSTREAM: u8 = 6;
const TO_PCI: u8 = 7;
const TO_EXPRESS: u8 = 8;

/// Source validation, redirection of requests and completions, upstream forwarding; and translation
/// blocking, which is not needed.
const ACS: u8 = 0b1_1111;
const NEEDED: u16 = 0b1_1101;

fn endpoint() -> Builder {
    Builder::endpoint(0x1af4, 0x1041)
}

/// A bus with these functions as devices 0, 1, 2..
fn bus(functions: &[Arc<FakeFunction>]) -> Arc<FakeBus> {
    let bus = FakeBus::new();
    for (device, function) in (0..).zip(functions) {
        bus.put(device, 0, function);
    }
    bus
}

fn port(kind: u8, behind: Arc<FakeBus>) -> Builder {
    Builder::bridge(behind).express(kind)
}

impl Machine {
    fn unit(&self, name: &str) -> Arc<IsolationUnit> {
        Arc::clone(self.device(&format!("pci0000:{name}")).isolation_unit())
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.unit(name).requester_ids().to_vec()
    }

    fn share(&self, a: &str, b: &str) -> bool {
        Arc::ptr_eq(&self.unit(a), &self.unit(b))
    }
}

#[test]
fn a_function_alone_in_its_device_has_a_unit_of_its_own() {
    let express = endpoint().express(ENDPOINT).build();
    let machine = Machine::with_functions(&[&endpoint().build(), &express]);
    machine.enumerate();
    assert_eq!(machine.ids("00:01.0"), [0x08]);
    assert_eq!(machine.ids("00:02.0"), [0x10]);
    assert!(machine.unit("00:01.0").bridges().is_empty());
    let device = machine.device("pci0000:00:01.0");
    assert!(Arc::ptr_eq(machine.unit("00:01.0").node(), device.node()));
}

#[test]
fn functions_of_a_device_share_one_unless_all_have_access_control() {
    let machine = Machine::new();
    let function = || endpoint().express(ENDPOINT).multi_function();
    let controlled = function().access_control(ACS).build();
    for (device, functions) in [
        (1, [function().build(), function().build()]),
        (
            2,
            [
                Arc::clone(&controlled),
                function().access_control(ACS).build(),
            ],
        ),
        (
            3,
            [function().access_control(ACS).build(), function().build()],
        ),
        // One that can do too little has none.
        (
            4,
            [function().build(), function().access_control(0b1).build()],
        ),
        // Conventional PCI has none.
        (5, [endpoint().multi_function().build(), endpoint().build()]),
    ] {
        for (number, function) in (0..).zip(functions) {
            machine.tree.root.put(device, number, &function);
        }
    }
    machine.enumerate();
    assert!(machine.share("00:01.0", "00:01.1"));
    assert_eq!(machine.ids("00:01.1"), [0x08, 0x09]);
    assert!(!machine.share("00:02.0", "00:02.1"));
    assert_eq!(machine.ids("00:02.1"), [0x11]);
    assert!(machine.share("00:03.0", "00:03.1"));
    assert!(machine.share("00:04.0", "00:04.1"));
    assert!(machine.share("00:05.0", "00:05.1"));
    assert!(!machine.share("00:01.0", "00:05.0"));
    assert_eq!(controlled.peek16(0x106), NEEDED);
}

#[test]
fn requests_from_conventional_pci_may_be_in_the_name_of_a_bridge() {
    let inner = bus(&[endpoint().build()]);
    let conventional = bus(&[
        endpoint().build(),
        endpoint().build(),
        Builder::bridge(inner).build(),
    ]);
    let below_express = bus(&[endpoint().build()]);
    let (first, second) = (
        Builder::bridge(conventional).build(),
        port(TO_PCI, below_express).build(),
    );
    let machine = Machine::with_functions(&[&first, &second]);
    machine.enumerate();
    for name in ["01:00.0", "01:01.0", "01:02.0", "02:00.0"] {
        assert!(machine.share("00:01.0", name), "{name}");
    }
    assert_eq!(machine.ids("02:00.0"), [0x08, 0x100, 0x108, 0x110, 0x200]);
    assert!(machine.unit("02:00.0").bridges().is_empty());
    // The bridge to PCI takes the name of the first function behind it, whoever sends.
    assert!(machine.share("00:02.0", "03:00.0"));
    assert_eq!(machine.ids("03:00.0"), [0x10, 0x300]);
    assert!(!machine.share("00:01.0", "00:02.0"));
}

#[test]
fn the_name_of_a_bridge_is_one_even_if_nobody_has_it() {
    let behind = FakeBus::new();
    behind.put(3, 0, &endpoint().build());
    let root_bus = bus(&[port(TO_PCI, behind).build()]);
    let root = port(ROOT_PORT, root_bus).access_control(ACS).build();
    let back = bus(&[endpoint().express(ENDPOINT).build()]);
    let to_express = port(TO_EXPRESS, back).build();
    let machine = Machine::with_functions(&[&root, &to_express]);
    machine.enumerate();
    assert_eq!(machine.ids("02:03.0"), [0x100, 0x200, 0x218]);
    assert_eq!(machine.unit("02:03.0").bridges(), [0x08]);
    assert_eq!(machine.ids("03:00.0"), [0x10, 0x300]);
}

#[test]
fn a_port_with_access_control_keeps_apart_what_is_behind() {
    let behind = || {
        bus(&[
            endpoint().express(ENDPOINT).build(),
            endpoint().express(ENDPOINT).build(),
        ])
    };
    let with = port(ROOT_PORT, behind()).access_control(ACS).build();
    let without = port(ROOT_PORT, behind()).build();
    let machine = Machine::with_functions(&[&with, &without]);
    machine.enumerate();
    assert_eq!(with.peek16(0x106), NEEDED);
    assert_eq!(machine.ids("01:00.0"), [0x100]);
    assert_eq!(machine.ids("01:01.0"), [0x108]);
    assert_eq!(machine.unit("01:01.0").bridges(), [0x08]);
    assert_eq!(machine.ids("02:01.0"), [0x200, 0x208]);
    assert_eq!(machine.unit("02:01.0").bridges(), [0x10]);
    // The ports send nothing but interrupts.
    assert_eq!(machine.ids("00:01.0"), [0x08]);
    assert_eq!(machine.ids("00:02.0"), [0x10]);
}

/// A switch with two downstream ports and a card behind each, behind a root port with access
/// control.
fn switch(first: Builder, second: Builder) -> Machine {
    let downstream = bus(&[first.build(), second.build()]);
    let upstream = bus(&[port(UPSTREAM, downstream).build()]);
    let root = port(ROOT_PORT, upstream).access_control(ACS).build();
    let machine = Machine::with_functions(&[&root]);
    machine.enumerate();
    machine
}

#[test]
fn one_port_without_access_control_opens_the_whole_switch() {
    let card = || bus(&[endpoint().express(ENDPOINT).build()]);
    let down = || port(DOWNSTREAM, card());
    let machine = switch(down().access_control(ACS), down().access_control(ACS));
    assert_eq!(machine.ids("03:00.0"), [0x300]);
    assert_eq!(machine.ids("04:00.0"), [0x400]);
    assert_eq!(machine.unit("04:00.0").bridges(), [0x08, 0x100, 0x208]);

    let machine = switch(down(), down().access_control(ACS));
    assert!(machine.share("03:00.0", "04:00.0"));
    assert_eq!(machine.ids("03:00.0"), [0x300, 0x400]);
    // What all of the unit's requests pass.
    assert_eq!(machine.unit("04:00.0").bridges(), [0x08, 0x100]);
}

#[test]
fn what_is_behind_the_ports_of_one_device_shares_a_unit() {
    let machine = Machine::new();
    let card = || bus(&[endpoint().express(ENDPOINT).build()]);
    let root = || port(ROOT_PORT, card()).multi_function();
    machine
        .tree
        .root
        .put(1, 0, &root().access_control(ACS).build());
    machine.tree.root.put(1, 1, &root().build());
    machine
        .tree
        .root
        .put(2, 0, &root().access_control(ACS).build());
    machine
        .tree
        .root
        .put(2, 1, &root().access_control(ACS).build());
    machine.enumerate();
    assert_eq!(machine.ids("01:00.0"), [0x100, 0x200]);
    assert!(machine.share("01:00.0", "02:00.0"));
    assert!(machine.unit("01:00.0").bridges().is_empty());
    assert_eq!(machine.ids("03:00.0"), [0x300]);
    assert_eq!(machine.unit("04:00.0").bridges(), [0x11]);
}

/// Plugs a card in whose device has these functions.
fn plug(machine: &Machine, port: &FakePort, numbers: &[u8]) {
    let function = |number: &u8| {
        (
            0,
            *number,
            endpoint().express(ENDPOINT).multi_function().build(),
        )
    };
    port.insert(numbers.iter().map(function).collect::<Card>());
    wait(machine);
}

fn wait(machine: &Machine) {
    let platform = &machine.platform;
    platform.block_on(platform.sleep(Duration::from_secs(5)));
}

fn drive_ports(machine: &Machine) {
    let ports = Arc::new(PortDriver::new(&machine.pci));
    machine
        .platform
        .block_on(machine.pci.add_driver(ports))
        .unwrap();
}

#[test]
fn all_functions_of_a_card_that_comes_are_in_its_unit_before_one_has_a_driver() {
    let machine = Machine::new();
    let port = FakePort::new(&machine.platform, None);
    machine.tree.root.put(1, 0, &port);
    drive_ports(&machine);
    machine.enumerate();
    plug(&machine, &port, &[0, 1, 5]);
    let first = machine.unit("01:00.0");
    assert_eq!(first.requester_ids(), [0x100, 0x101, 0x105]);
    assert_eq!(first.bridges(), [0x08]);
    assert!(machine.share("01:00.0", "01:00.5"));

    // Who still has something of the card that has gone has the unit of the next one, too.
    port.pull();
    wait(&machine);
    plug(&machine, &port, &[0, 1]);
    assert!(Arc::ptr_eq(&first, &machine.unit("01:00.1")));
    drop(first);
    port.pull();
    wait(&machine);
    plug(&machine, &port, &[0]);
    assert_eq!(machine.ids("01:00.0"), [0x100]);
}

#[test]
fn a_unit_knows_the_ids_of_a_card_that_joins_it_later() {
    let machine = Machine::new();
    let port = FakePort::new(&machine.platform, None);
    let card = bus(&[endpoint().express(ENDPOINT).build()]);
    let other = self::port(ROOT_PORT, card).multi_function().build();
    machine.tree.root.put(1, 0, &other);
    machine.tree.root.put(1, 1, &port);
    drive_ports(&machine);
    machine.enumerate();
    let unit = machine.unit("01:00.0");
    assert_eq!(unit.requester_ids()[..3], [0x100, 0x200, 0x201]);
    plug(&machine, &port, &[0, 7]);
    assert!(machine.share("01:00.0", "02:00.7"));
    assert!(unit.requester_ids().contains(&0x207));
}

/// A card with virtual functions, on the root bus or behind a port without access control.
fn virtual_functions(behind_port: bool) -> Machine {
    let machine = Machine::new();
    let port = FakePort::new(&machine.platform, Some(0xe800_0000..0xe810_0000));
    let name = if behind_port {
        machine.tree.root.put(1, 0, &port);
        let card = FakeSriov::new(SriovPlan::default(), port.bus());
        port.insert_any(0, 0, &card);
        "pci0000:01:00.0"
    } else {
        let card = FakeSriov::new(SriovPlan::default(), &machine.tree.root);
        machine.tree.root.put(0, 0, &card);
        "pci0000:00:00.0"
    };
    machine.enumerate();
    let sriov = SrIov::of(&machine.pci, &machine.device(name)).unwrap();
    machine.platform.block_on(sriov.enable(3)).unwrap();
    machine
}

#[test]
fn each_virtual_function_has_a_unit_where_requests_reach_the_root_complex() {
    let machine = virtual_functions(false);
    for number in 0..4_u8 {
        assert_eq!(machine.ids(&format!("00:00.{number}")), [number.into()]);
    }
}

#[test]
fn virtual_functions_share_the_unit_of_what_the_port_in_front_does_not_keep_apart() {
    let machine = virtual_functions(true);
    for number in 1..4 {
        let name = format!("01:00.{number}");
        assert!(machine.share("01:00.0", &name));
        assert!(machine.ids(&name).contains(&(0x100 + number)));
    }
}

#[test]
fn a_card_that_claims_any_number_of_virtual_functions_has_no_more_ids_than_there_are() {
    let machine = Machine::new();
    let port = FakePort::new(&machine.platform, None);
    machine.tree.root.put(1, 0, &port);
    let plan = |stride| SriovPlan {
        total: u16::MAX,
        stride,
        ..SriovPlan::default()
    };
    for device in 0..8 {
        let card = FakeSriov::new(plan(u16::from(device != 0)), port.bus());
        port.insert_any(device, 0, &card);
    }
    machine.enumerate();
    let ids = machine.ids("01:03.0");
    assert_eq!(ids.first(), Some(&0x100));
    assert_eq!(ids.last(), Some(&0xffff));
    assert!(ids.is_sorted_by(|a, b| a < b));
}
