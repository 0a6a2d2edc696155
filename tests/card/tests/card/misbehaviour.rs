//! What a card can be made to do, and what it does when its driver goes wrong.

use ifcvf_card::{Plan, Product};
use virtq::DmaAddr;

use crate::slot::{ACCESS_PLATFORM, DRIVER_OK, ON, Slot, VERSION_1};

const NEEDS_RESET: u8 = 64;

#[test]
fn a_card_that_is_gone_is_all_ones() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    lines[0].offer(&[], 100);
    lines[1].offer(&[0; 72], 0);
    slot.card.remove();
    slot.kick(0);
    slot.kick(1);
    assert!(lines[0].take().is_none() && lines[1].take().is_none());
    assert_eq!(slot.config32(0), u32::MAX);
    assert_eq!(slot.status(), 0xff);
    assert_eq!(slot.read32(4, 0x20), u32::MAX);
    slot.card.write_config(4, &ON.to_le_bytes());
    assert_eq!(slot.card.bar_address(0), None);
    assert_eq!(slot.interrupts(), []);
}

#[test]
fn a_card_goes_after_as_many_accesses_as_it_is_told() {
    let slot = Slot::of(Product::N3000Net);
    slot.card.set_faults(|faults| faults.gone_after = Some(3));
    let reads = [(); 5].map(|()| slot.read16(0, 0x12));
    assert_eq!(reads, [5, 5, 5, 0xffff, 0xffff]);
    let before = slot.card.counters().accesses;
    slot.config32(0);
    slot.status();
    assert_eq!(slot.card.counters().accesses, before + 2);
}

#[test]
fn ring_words_can_be_wrong() {
    let slot = Slot::of(Product::N3000Net);
    slot.start(0);
    slot.card
        .set_faults(|faults| faults.ring_words = Some(0x1234_0007));
    slot.stop(0);
    assert_eq!(slot.read32(4, 0x20), 0x1234_0007);
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let slot = Slot::of(Product::N3000Net);
    let lines = slot.start(0);
    // An available index that no driver can have reached.
    let driver = lines[0].ring.addresses().driver;
    slot.heap.write(DmaAddr(driver.0 + 2), &[0, 9]).unwrap();
    slot.kick(0);
    slot.assert_blamed("queue 0");
    assert_ne!(slot.status() & NEEDS_RESET, 0);
    slot.kick(0);
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
    assert_eq!(slot.status() & NEEDS_RESET, 0);
}

#[test]
fn memory_that_is_not_there_breaks_no_more_than_its_request() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    lines[0].offer(&[], 100);
    slot.kick(0);
    lines[1].offer(&[0; 72], 0);
    let table = lines[1].ring.addresses().descriptor;
    slot.heap.write(table, &[0xff; 4]).unwrap();
    slot.kick(1);
    slot.assert_blamed("a frame of 72 bytes");
    assert!(lines[1].take().is_some());
    assert_eq!(slot.status() & NEEDS_RESET, 0);
}

#[test]
fn a_card_touches_no_memory_before_driver_ok_or_without_bus_mastering() {
    let slot = Slot::new(Plan::new(Product::C5000xNet));
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
    let mut lines = [slot.line(0), slot.line(0)];
    for (index, line) in (0..).zip(&lines) {
        slot.place(index, line);
        slot.enable(index);
    }
    lines[0].offer(&[], 100);
    lines[1].offer(&[0; 72], 0);
    slot.kick(0);
    slot.kick(1);
    assert!(lines[1].take().is_none());
    slot.card.write_config(4, &2_u16.to_le_bytes());
    slot.run();
    assert_ne!(slot.status() & DRIVER_OK, 0);
    slot.kick(0);
    slot.kick(1);
    assert!(lines[1].take().is_none());
    slot.card.write_config(4, &ON.to_le_bytes());
    slot.kick(0);
    slot.kick(1);
    assert!(lines[1].take().is_some() && lines[0].take().is_some());
}
