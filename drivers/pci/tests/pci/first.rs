//! Functions that must be there before others.

use std::sync::Arc;

use pci::{PciId, PciRoot};

use crate::fakes::function::{BarType, Builder};
use crate::fakes::machine::Machine;
use crate::fakes::tree::FakeBus;

const FIRST: &[PciId] = &[PciId {
    vendor: Some(1),
    devices: 7..=7,
    ..PciId::ANY
}];

fn function(device: u16) -> Arc<crate::fakes::function::FakeFunction> {
    let function = Builder::endpoint(1, device);
    function.bar(0, 0x1000, BarType::Memory32).build()
}

fn names(machine: &Machine) -> Vec<String> {
    let nodes = machine.root.children();
    nodes.iter().map(|node| node.name().to_owned()).collect()
}

#[test]
fn a_function_that_comes_first_is_before_all_others_on_the_bus_and_in_the_tree() {
    let machine = Machine::with_functions(&[&function(1), &function(7)]);
    let behind = FakeBus::new();
    behind.put(0, 0, &function(2));
    machine
        .tree
        .root
        .put(3, 0, &Builder::bridge(behind).build());
    let access = Arc::clone(&machine.tree) as _;
    let root = PciRoot::new(access, machine.platform(), machine.windows.clone());
    let all = root
        .with_first(FIRST)
        .enumerate(&machine.pci, &machine.root);
    assert_eq!(machine.platform.block_on(all), 4);
    let expected = ["pci0000:00:02.0", "pci0000:00:01.0", "pci0000:00:03.0"];
    assert_eq!(machine.names()[..3], expected);
    // The one that is behind a bridge stays there.
    assert_eq!(names(&machine), expected);
}

#[test]
fn without_one_the_order_is_that_of_the_bus() {
    let machine = Machine::with_functions(&[&function(1), &function(7)]);
    machine.enumerate();
    let expected = ["pci0000:00:01.0", "pci0000:00:02.0"];
    assert_eq!(machine.names(), expected);
    assert_eq!(names(&machine), expected);
}
