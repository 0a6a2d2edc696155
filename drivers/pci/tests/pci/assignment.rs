//! Addresses for registers: what firmware gave is kept, the rest overlaps nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::fakes::function::{BarType, Builder, FakeFunction};
use crate::fakes::machine::{IO, MEM32, MEM64, Machine};
use crate::fakes::tree::FakeBus;

fn inside(inner: &Range<u64>, outer: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Every memory register of `functions` has an aligned address, and none overlaps another.
fn check_apart(functions: &[&Arc<FakeFunction>], bars: usize) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = functions
        .iter()
        .flat_map(|function| function.memory())
        .map(|(_, range)| range)
        .collect();
    assert_eq!(ranges.len(), bars);
    ranges.sort_by_key(|range| range.start);
    for range in &ranges {
        assert!(
            range.start.is_multiple_of(range.end - range.start),
            "{range:x?} is not aligned"
        );
    }
    for pair in ranges.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:x?}");
    }
    ranges
}

#[test]
fn unassigned_registers_get_addresses_from_the_host() {
    let first = Builder::endpoint(1, 1)
        .bar(0, 0x20, BarType::Io)
        .bar(1, 0x1000, BarType::Memory32)
        .bar(4, 0x4000, BarType::Prefetchable64)
        .build();
    let second = Builder::endpoint(1, 1)
        .bar(0, 0x10_0000, BarType::Memory32)
        .build();
    let third = Builder::endpoint(1, 1)
        .bar(2, 8 << 30, BarType::Prefetchable64)
        .build();
    let machine = Machine::with_functions(&[&first, &second, &third]);
    machine.enumerate();
    let ranges = check_apart(&[&first, &second, &third], 4);
    assert!(ranges[..3].iter().all(|range| inside(range, &MEM32)));
    assert!(inside(&ranges[3], &MEM64));
    let io = first.bar_address(0).unwrap();
    assert!(inside(&(io..io + 0x20), &IO));
}

#[test]
fn assignments_of_firmware_are_kept_and_avoided() {
    // Right where an assignment from the window's start would go, and outside every window.
    let kept = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .bar(1, 0x1000, BarType::Memory32)
        .bar(4, 0x4000, BarType::Memory64)
        .assigned(0, MEM32.start)
        .assigned(1, MEM32.start + 0x2000)
        .assigned(4, 0xfe00_0000)
        .build();
    let new = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .bar(1, 0x2000, BarType::Memory32)
        .build();
    let before = kept.snapshot();
    Machine::with_functions(&[&new, &kept]).enumerate();
    assert_eq!(kept.snapshot(), before);
    check_apart(&[&kept, &new], 5);
}

#[test]
fn a_register_that_overlaps_another_moves() {
    let first = Builder::endpoint(1, 1)
        .bar(0, 0x2000, BarType::Memory32)
        .assigned(0, 0xe100_0000);
    let second = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .assigned(0, 0xe100_1000);
    let (first, second) = (first.build(), second.build());
    Machine::with_functions(&[&first, &second]).enumerate();
    assert_eq!(first.bar_address(0), Some(0xe100_0000));
    check_apart(&[&first, &second], 2);
}

#[test]
fn a_full_window_leaves_registers_unassigned_but_the_machine_runs() {
    let large = Builder::endpoint(1, 1)
        .bar(0, 256 << 20, BarType::Memory32)
        .build();
    let late = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .build();
    let machine = Machine::with_functions(&[&late, &large]);
    assert_eq!(machine.enumerate(), 2);
    assert_eq!(large.bar_address(0), Some(MEM32.start));
    assert_eq!(late.bar_address(0), None);
}

#[test]
fn registers_behind_bridges_get_windows_all_the_way() {
    let device = || {
        Builder::endpoint(1, 1)
            .bar(0, 0x1000, BarType::Memory32)
            .bar(2, 0x20_0000, BarType::Prefetchable64)
            .build()
    };
    let (near, far, beside) = (device(), device(), device());
    let (outer_bus, inner_bus) = (FakeBus::new(), FakeBus::new());
    let inner = Builder::bridge(Arc::clone(&inner_bus)).build();
    inner_bus.put(0, 0, &far);
    outer_bus.put(0, 0, &inner);
    outer_bus.put(1, 0, &near);
    let outer = Builder::bridge(outer_bus)
        .bar(0, 0x1000, BarType::Memory32)
        .build();
    Machine::with_functions(&[&outer, &beside]).enumerate();

    check_apart(&[&near, &far, &beside, &outer], 7);
    let (outer_window, inner_window) = (
        outer.bridge_window().unwrap(),
        inner.bridge_window().unwrap(),
    );
    assert!(inside(&outer_window, &MEM32) && inside(&inner_window, &outer_window));
    assert!(
        far.memory()
            .iter()
            .all(|(_, range)| inside(range, &inner_window))
    );
    for (_, range) in near.memory() {
        assert!(inside(&range, &outer_window));
        assert!(range.end <= inner_window.start || inner_window.end <= range.start);
    }
    for (_, range) in [beside.memory(), outer.memory()].concat() {
        assert!(range.end <= outer_window.start || outer_window.end <= range.start);
    }
    // Memory, I/O and mastering pass through both.
    assert_eq!((outer.command() & 7, inner.command() & 7), (7, 7));
}

#[test]
fn a_new_window_is_aligned_as_bridges_demand() {
    let small = || {
        Builder::endpoint(1, 1)
            .bar(0, 0x1000, BarType::Memory32)
            .build()
    };
    let (before, behind) = (small(), small());
    let bus = FakeBus::new();
    bus.put(0, 0, &behind);
    let bridge = Builder::bridge(bus).build();
    Machine::with_functions(&[&before, &bridge]).enumerate();
    assert_eq!(before.bar_address(0), Some(MEM32.start));
    let window = bridge.bridge_window().unwrap();
    assert_eq!(window, MEM32.start + 0x10_0000..MEM32.start + 0x20_0000);
    assert!(inside(&behind.memory()[0].1, &window));
}

/// A bridge with numbers and a window of 1 MiB at 0xe1000000.
fn open_bridge(behind: Arc<FakeBus>) -> Builder {
    Builder::bridge(behind)
        .set(0x18, &[0, 1, 1])
        .set(0x20, &[0, 0xe1, 0, 0xe1])
}

#[test]
fn a_gap_in_the_window_of_firmware_is_used() {
    let kept = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .assigned(0, 0xe100_0000);
    let (kept, new) = (
        kept.build(),
        Builder::endpoint(1, 1)
            .bar(0, 0x1000, BarType::Memory32)
            .build(),
    );
    let behind = FakeBus::new();
    behind.put(0, 0, &kept);
    behind.put(1, 0, &new);
    let bridge = open_bridge(behind).build();
    Machine::with_functions(&[&bridge]).enumerate();
    assert_eq!(kept.bar_address(0), Some(0xe100_0000));
    assert_eq!(new.bar_address(0), Some(0xe100_1000));
    assert_eq!(bridge.bridge_window(), Some(0xe100_0000..0xe110_0000));
}

#[test]
fn a_window_that_is_too_small_is_laid_out_anew() {
    let kept = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .assigned(0, 0xe100_0000);
    let (kept, new) = (
        kept.build(),
        Builder::endpoint(1, 1)
            .bar(0, 0x20_0000, BarType::Memory32)
            .build(),
    );
    // The neighbour sits right behind the window.
    let neighbour = Builder::endpoint(1, 1).bar(0, 0x1000, BarType::Memory32);
    let neighbour = neighbour.assigned(0, 0xe110_0000).build();
    let behind = FakeBus::new();
    behind.put(0, 0, &kept);
    behind.put(1, 0, &new);
    let bridge = open_bridge(behind).build();
    Machine::with_functions(&[&bridge, &neighbour]).enumerate();
    check_apart(&[&kept, &new, &neighbour], 3);
    let window = bridge.bridge_window().unwrap();
    assert!(
        [kept.memory(), new.memory()]
            .concat()
            .iter()
            .all(|(_, range)| inside(range, &window))
    );
    assert_eq!(neighbour.bar_address(0), Some(0xe110_0000));
}

#[test]
fn a_register_outside_the_window_of_its_bridge_moves_inside() {
    let lost = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .assigned(0, 0xe200_0000);
    let lost = lost.build();
    let behind = FakeBus::new();
    behind.put(0, 0, &lost);
    let bridge = open_bridge(behind).build();
    Machine::with_functions(&[&bridge]).enumerate();
    assert_eq!(lost.bar_address(0), Some(0xe100_0000));
}

#[test]
fn nothing_is_written_to_a_machine_that_firmware_has_set_up() {
    let device = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .assigned(0, 0xe100_0000);
    let device = device.build();
    let behind = FakeBus::new();
    behind.put(0, 0, &device);
    let bridge = open_bridge(behind).set(0x04, &[7]).build();
    let before = (bridge.snapshot(), device.snapshot());
    Machine::with_functions(&[&bridge]).enumerate();
    assert_eq!((bridge.snapshot(), device.snapshot()), before);
}

#[test]
fn a_window_outside_the_one_before_it_is_no_use() {
    let lost = Builder::endpoint(1, 1)
        .bar(0, 0x1000, BarType::Memory32)
        .assigned(0, 0xe200_0000);
    let lost = lost.build();
    let (outer_bus, inner_bus) = (FakeBus::new(), FakeBus::new());
    inner_bus.put(0, 0, &lost);
    // The inner bridge lets 0xe2000000 through, the outer one 0xe1000000.
    let inner = Builder::bridge(inner_bus)
        .set(0x18, &[1, 2, 2])
        .set(0x20, &[0, 0xe2, 0, 0xe2]);
    let inner = inner.build();
    outer_bus.put(0, 0, &inner);
    let outer = open_bridge(outer_bus).set(0x18, &[0, 1, 2]).build();
    Machine::with_functions(&[&outer]).enumerate();
    let (outer, inner) = (
        outer.bridge_window().unwrap(),
        inner.bridge_window().unwrap(),
    );
    assert!(inside(&inner, &outer));
    assert!(inside(&lost.memory()[0].1, &inner));
}
