//! Registers that are larger, or lie higher, than the processor has addresses.

use crate::fakes::function::{BarType, Builder, MEMORY_ENABLE};
use crate::fakes::machine::{MEM32, MEM64, Machine, REACH};
use crate::fakes::tree::FakeBus;

/// Sizes that fit nowhere.
const ABSURD: [u64; 4] = [REACH, 1 << 46, 1 << 62, 1 << 63];

fn small() -> Builder {
    Builder::endpoint(1, 1).bar(0, 0x4000, BarType::Prefetchable64)
}

#[test]
fn what_firmware_put_out_of_reach_comes_back() {
    for address in [REACH, 2 * REACH, REACH - 0x4000, u64::MAX - 0x7fff] {
        let function = small().assigned(0, address).build();
        Machine::with_functions(&[&function]).enumerate();
        let found = function.bar_address(0).unwrap();
        let wanted = if address < REACH {
            address
        } else {
            MEM32.start
        };
        assert_eq!(found, wanted, "{address:#x}");
    }
}

#[test]
fn a_register_that_fits_nowhere_is_left_off_and_the_others_work() {
    for size in ABSURD {
        let absurd = Builder::endpoint(1, 2)
            .bar(2, size, BarType::Prefetchable64)
            .set(0x04, &[3]);
        let absurd = if size < 1 << 63 {
            absurd.assigned(2, size)
        } else {
            absurd
        }
        .build();
        let moved = small().assigned(0, 2 * REACH).build();
        let machine = Machine::with_functions(&[&absurd, &moved]);
        machine.enumerate();
        assert!(
            moved
                .bar_address(0)
                .is_some_and(|address| MEM32.contains(&address))
        );
        assert_eq!(absurd.command() & MEMORY_ENABLE, 0, "{size:#x}");
        assert!(machine.device("pci0000:00:01.0").claim().is_err());
        assert!(machine.device("pci0000:00:02.0").claim().is_ok());
    }
}

#[test]
fn a_large_register_that_fits_has_a_place() {
    let function = Builder::endpoint(1, 1).bar(0, 32 << 30, BarType::Prefetchable64);
    let function = function.assigned(0, REACH).build();
    Machine::with_functions(&[&function]).enumerate();
    assert_eq!(function.bar_address(0), Some(MEM64.start));
}

#[test]
fn behind_a_bridge_it_costs_its_neighbours_nothing() {
    for size in ABSURD {
        let absurd = Builder::endpoint(1, 2).bar(0, size, BarType::Prefetchable64);
        let (absurd, neighbour) = (absurd.build(), small().build());
        let behind = FakeBus::new();
        behind.put(0, 0, &absurd);
        behind.put(1, 0, &neighbour);
        let bridge = Builder::bridge(behind).build();
        let machine = Machine::with_functions(&[&bridge]);
        machine.enumerate();
        let window = bridge.bridge_window().unwrap();
        assert!(
            neighbour
                .bar_address(0)
                .is_some_and(|address| window.contains(&address))
        );
        assert_eq!(absurd.bar_address(0), None);
    }
}

#[test]
fn a_window_out_of_reach_is_no_use() {
    let function = small().assigned(0, 2 * REACH).build();
    let behind = FakeBus::new();
    behind.put(0, 0, &function);
    // Prefetchable memory from 2 TiB on, as firmware opens it.
    let bridge = Builder::bridge(behind)
        .set(0x18, &[0, 1, 1])
        .set(0x24, &[1, 0, 1, 0])
        .set(0x28, &[0, 2, 0, 0, 0, 2, 0, 0])
        .build();
    Machine::with_functions(&[&bridge]).enumerate();
    let window = bridge.bridge_window().unwrap();
    assert!(
        function
            .bar_address(0)
            .is_some_and(|address| window.contains(&address))
    );
}
