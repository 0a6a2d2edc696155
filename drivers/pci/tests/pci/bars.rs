//! What base address registers ask for, and that asking does no harm.

use pci::{BarError, ResourceError};

use crate::fakes::function::{BUS_MASTER, BarType, Builder, COMMAND, MEMORY_ENABLE};
use crate::fakes::machine::Machine;

const INTERRUPT_DISABLE: u16 = 1 << 10;

const NAME: &str = "pci0000:00:01.0";

/// Memory and I/O decode.
const DECODE: u16 = 3;

fn fact(builder: Builder, fact: &str) -> Option<String> {
    let machine = Machine::with_functions(&[&builder.build()]);
    machine.enumerate();
    machine.fact(NAME, fact)
}

#[test]
fn each_kind_is_sized() {
    let device = || {
        Builder::endpoint(1, 1)
            .bar(0, 0x20, BarType::Io)
            .bar(1, 0x1000, BarType::Memory32)
            .bar(2, 8 << 30, BarType::Memory64)
            .bar(4, 0x10, BarType::Prefetchable64)
            .assigned(0, 0xc100)
            .assigned(1, 0xe100_0000)
            .assigned(2, 0x84_0000_0000)
            .assigned(4, 0xe200_0010)
    };
    assert_eq!(fact(device(), "BAR 0").unwrap(), "io 0xc100 size 0x20");
    assert_eq!(
        fact(device(), "BAR 1").unwrap(),
        "mem32 0xe1000000 size 0x1000"
    );
    assert_eq!(
        fact(device(), "BAR 2").unwrap(),
        "mem64 0x8400000000 size 0x200000000"
    );
    assert_eq!(fact(device(), "BAR 3"), None);
    assert_eq!(
        fact(device(), "BAR 4").unwrap(),
        "mem64 0xe2000010 size 0x10"
    );
    assert_eq!(fact(device(), "BAR 5"), None);
}

#[test]
fn the_lowest_bit_that_sticks_is_the_size() {
    // Bits 13 and 14 do not stick, which no size explains but the lowest bit.
    let gaps = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .writable(0x10, &[0, 0x90, 0xff, 0xff]);
    assert_eq!(fact(gaps, "BAR 0").unwrap(), "mem32 0xe0000000 size 0x1000");
}

#[test]
fn io_registers_of_16_bits_are_sized() {
    let narrow = Builder::endpoint(1, 1)
        .set(0x10, &[1])
        .writable(0x10, &[0xe0, 0xff]);
    assert_eq!(fact(narrow, "BAR 0").unwrap(), "io 0xc000 size 0x20");
}

#[test]
fn a_reserved_memory_type_is_an_error() {
    let builder = || {
        Builder::endpoint(1, 1)
            .set(0x10, &[0b010])
            .bar(1, 0x1000, BarType::Memory32)
    };
    assert_eq!(
        fact(builder(), "BAR 0").unwrap(),
        BarError::ReservedType.to_string()
    );
    assert_eq!(
        fact(builder(), "BAR 1").unwrap(),
        "mem32 0xe0000000 size 0x1000"
    );
    let machine = Machine::with_functions(&[&builder().build()]);
    machine.enumerate();
    let claim = machine.device(NAME).claim().unwrap();
    let error = claim.map(0).unwrap_err();
    assert_eq!(error, ResourceError::BadBar(BarError::ReservedType));
}

#[test]
fn a_64_bit_register_at_the_end_is_an_error() {
    let last = Builder::endpoint(1, 1)
        .set(0x24, &[0b100])
        .writable(0x24, &[0, 0xf0, 0xff, 0xff]);
    assert_eq!(
        fact(last, "BAR 5").unwrap(),
        BarError::NoUpperHalf.to_string()
    );
}

#[test]
fn a_64_bit_register_of_which_nothing_sticks_is_not_there() {
    assert_eq!(
        fact(Builder::endpoint(1, 1).set(0x10, &[0b100]), "BAR 0"),
        None
    );
}

#[test]
fn sizing_writes_happen_with_decode_off_and_leave_no_trace() {
    let function = Builder::endpoint(1, 1)
        .bar(0, 0x40, BarType::Io)
        .bar(1, 0x1000, BarType::Memory32)
        .bar(4, 0x4000, BarType::Prefetchable64)
        .assigned(0, 0xc040)
        .assigned(1, 0xe100_0000)
        .assigned(4, 0xe200_0000)
        .set(COMMAND, &[7, 4])
        .build();
    let before = function.snapshot();
    Machine::with_functions(&[&function]).enumerate();
    assert_eq!(function.snapshot(), before);
    let writes = function.writes();
    let bars = writes
        .iter()
        .filter(|write| (0x10..0x28).contains(&write.offset));
    let probes = bars.clone().filter(|write| write.value == u32::MAX).count();
    assert_eq!(probes, 6, "one for each register");
    for write in bars {
        assert_eq!(write.command & DECODE, 0, "{write:x?}");
    }
}

#[test]
fn a_host_bridge_is_not_sized() {
    let bridge =
        Builder::endpoint(0x8086, 0x29c0)
            .class(0x06_0000)
            .bar(0, 0x1000, BarType::Memory32);
    let bridge = bridge.build();
    Machine::with_functions(&[&bridge]).enumerate();
    assert!(bridge.writes().is_empty());
}

#[test]
fn decode_lasts_as_long_as_a_claim_or_a_mapping() {
    let function = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .build();
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let device = machine.device(NAME);
    let before = function.snapshot();

    let claim = device.claim().unwrap();
    assert_eq!(function.command(), MEMORY_ENABLE);
    let registers = claim.map(0).unwrap();
    // SAFETY: a fake reaches no memory.
    let master = unsafe { claim.enable_bus_master() };
    let mastering = MEMORY_ENABLE | BUS_MASTER | INTERRUPT_DISABLE;
    assert_eq!(function.command(), mastering);
    drop(claim);
    // Nobody else gets a function that still reaches memory.
    assert_eq!(device.claim().unwrap_err(), ResourceError::Claimed);
    assert_eq!(function.command(), mastering);
    master.stop();
    assert_eq!(function.command(), MEMORY_ENABLE | INTERRUPT_DISABLE);
    drop(master);
    assert_eq!(function.command(), MEMORY_ENABLE);
    assert_eq!(device.claim().unwrap_err(), ResourceError::Claimed);
    drop(registers);
    assert_eq!(function.snapshot(), before);
    device.claim().unwrap();
}

#[test]
fn bits_that_were_set_before_stay_set() {
    let function = Builder::endpoint(1, 1).set(COMMAND, &[6]).build();
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let claim = machine.device(NAME).claim().unwrap();
    // SAFETY: a fake reaches no memory.
    drop(unsafe { claim.enable_bus_master() });
    drop(claim);
    assert_eq!(function.command(), MEMORY_ENABLE | BUS_MASTER);
}

#[test]
fn registers_that_cannot_be_mapped_are_refused_by_name() {
    let function = Builder::endpoint(1, 1).bar(0, 0x20, BarType::Io).build();
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let claim = machine.device(NAME).claim().unwrap();
    assert_eq!(claim.map(0).unwrap_err(), ResourceError::IoBar);
    for index in [1, 6, 255] {
        assert_eq!(claim.map(index).unwrap_err(), ResourceError::NoBar);
    }
}

#[test]
fn a_function_whose_memory_found_no_room_cannot_be_claimed() {
    let function = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .bar(1, 1 << 31, BarType::Memory32)
        .build();
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let error = machine.device(NAME).claim().unwrap_err();
    assert_eq!(error, ResourceError::Unassigned);
    assert_eq!(function.command() & MEMORY_ENABLE, 0);
}
