//! Capability lists, also malformed ones.

use std::sync::Arc;

use pci::{CapabilityError, ConfigSpace, ExtendedCapability, capabilities, extended_capabilities};
use pci_types::PciAddress;

use crate::fakes::function::{Builder, STATUS};
use crate::fakes::tree::{FakeBus, FakeTree};

fn config_of(builder: Builder, function_size: u16) -> ConfigSpace {
    let tree = FakeTree {
        function_size,
        ..FakeTree::default()
    };
    tree.root.put(1, 0, &builder.build());
    ConfigSpace::new(Arc::new(tree), PciAddress::new(0, 0, 1, 0))
}

fn ids(builder: Builder) -> Result<Vec<u8>, CapabilityError> {
    let list = capabilities(&config_of(builder, 4096))?;
    Ok(list.iter().map(|capability| capability.id).collect())
}

fn extended_ids(builder: Builder) -> Result<Vec<u16>, CapabilityError> {
    let list = extended_capabilities(&config_of(builder, 4096))?;
    Ok(list
        .iter()
        .map(|capability: &ExtendedCapability| capability.id)
        .collect())
}

fn two() -> Builder {
    Builder::endpoint(1, 1)
        .capability(0x05, &[0; 10])
        .capability(0x11, &[0; 10])
}

#[test]
fn the_list_is_followed_in_order() {
    assert_eq!(ids(two()), Ok(vec![0x05, 0x11]));
}

#[test]
fn without_the_status_bit_there_is_no_list() {
    assert_eq!(ids(two().set(STATUS, &[0])), Ok(vec![]));
}

#[test]
fn reserved_pointer_bits_are_masked() {
    let config = config_of(two().set(0x34, &[0x43]).set(0x41, &[0x4e]), 4096);
    let list = capabilities(&config).unwrap();
    let offsets: Vec<_> = list.iter().map(|capability| capability.offset).collect();
    assert_eq!(offsets, [0x40, 0x4c]);
}

#[test]
fn a_list_that_loops_is_an_error() {
    assert_eq!(ids(two().set(0x4d, &[0x40])), Err(CapabilityError::Loop));
    assert_eq!(ids(two().set(0x41, &[0x42])), Err(CapabilityError::Loop));
}

#[test]
fn a_pointer_into_the_header_is_an_error() {
    assert_eq!(
        ids(two().set(0x41, &[0x3c])),
        Err(CapabilityError::Misplaced)
    );
}

#[test]
fn the_head_of_the_list_depends_on_the_header() {
    let bridge = Builder::bridge(FakeBus::new()).capability(0x10, &[]);
    assert_eq!(ids(bridge), Ok(vec![0x10]));
    let card_bus = two().set(0x0e, &[2]).set(0x34, &[0]).set(0x14, &[0x40]);
    assert_eq!(ids(card_bus), Ok(vec![0x05, 0x11]));
    assert_eq!(ids(two().set(0x0e, &[5])), Ok(vec![]));
}

#[test]
fn a_function_that_has_gone_has_no_list() {
    let tree = FakeTree::new();
    let function = two().build();
    tree.root.put(1, 0, &function);
    let config = ConfigSpace::new(tree, PciAddress::new(0, 0, 1, 0));
    function.pull_out();
    assert!(!config.is_present());
    assert_eq!(capabilities(&config), Ok(vec![]));
    assert_eq!(extended_capabilities(&config), Ok(vec![]));
}

/// Id, version 1, next.
fn extended(id: u16, next: u16) -> [u8; 4] {
    let word = u32::from(id) | (1 << 16) | (u32::from(next) << 20);
    word.to_le_bytes()
}

#[test]
fn extended_capabilities_are_followed() {
    let builder = || {
        Builder::endpoint(1, 1)
            .set(0x100, &extended(0x0001, 0x148))
            .set(0x148, &extended(0x10, 0))
    };
    assert_eq!(extended_ids(builder()), Ok(vec![0x0001, 0x0010]));
    // Through ports there are none.
    assert_eq!(
        extended_capabilities(&config_of(builder(), 256)),
        Ok(vec![])
    );
    assert_eq!(extended_ids(Builder::endpoint(1, 1)), Ok(vec![]));
}

#[test]
fn malformed_extended_lists_are_errors() {
    let builder = || Builder::endpoint(1, 1).set(0x100, &extended(1, 0x200));
    let looping = builder().set(0x200, &extended(2, 0x100));
    assert_eq!(extended_ids(looping), Err(CapabilityError::Loop));
    let misplaced = builder().set(0x200, &extended(2, 0x40));
    assert_eq!(extended_ids(misplaced), Err(CapabilityError::Misplaced));
}
