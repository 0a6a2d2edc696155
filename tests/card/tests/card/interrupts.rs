//! MSI-X and the ISR status (PCI Local Bus 3.0, 6.8.2; VIRTIO 1.2, 4.1.4.5 and 4.1.5.1.2).

use std::collections::BTreeSet;

use ifcvf_card::{Message, MsixTable, Plan, Product, Refused};

use crate::slot::{ACCESS_PLATFORM, ON, Slot, VERSION_1};

const ENABLE: u16 = 1 << 15;
const MASK: u16 = 1 << 14;
/// Where the pending bits are in BAR 2.
const PENDING: u64 = 0x1000;

/// Message control is in the first capability.
fn set_control(slot: &Slot, control: u16) {
    let at = slot.config16(0x34) & 0xff;
    slot.card.write_config(at + 2, &control.to_le_bytes());
}

fn message(vector: u16) -> Message {
    Message {
        address: 0xfee0_1000_0000 + u64::from(vector),
        data: 0x40 + u32::from(vector),
    }
}

/// Writes an entry of the table and unmasks it.
fn set_entry(slot: &Slot, vector: u16) {
    let at = 16 * u64::from(vector);
    let Message { address, data } = message(vector);
    let [low, high] = crate::slot::halves(address);
    for (word, value) in (at..).step_by(4).zip([low, high, data, 0]) {
        slot.write32(2, word, value);
    }
}

/// A card that runs, with each entry set and each queue at the vector of its number, the
/// configuration at the last.
fn running(plan: Plan) -> (Slot, Vec<crate::slot::Line>) {
    let slot = Slot::new(plan);
    set_control(&slot, ENABLE);
    for vector in 0..slot.card.vectors() {
        set_entry(&slot, vector);
    }
    let lines = slot.start(0);
    slot.write16(0, 0x10, slot.card.vectors() - 1);
    (slot, lines)
}

fn net() -> Plan {
    Plan::new(Product::N3000Net)
}

/// Makes the card use something of queue 1.
fn transmit(slot: &Slot, lines: &mut [crate::slot::Line]) {
    lines[0].offer(&[], 100);
    slot.kick(0);
    lines[1].offer(&[0; 72], 0);
    slot.kick(1);
    lines[0].take().unwrap();
    lines[1].take().unwrap();
}

#[test]
fn a_message_goes_where_the_table_says() {
    let (slot, mut lines) = running(net());
    transmit(&slot, &mut lines);
    assert_eq!(slot.interrupts(), [(0, message(0)), (1, message(1))]);
    slot.card.change_config(|_| ());
    let config = slot.card.vectors() - 1;
    assert_eq!(slot.interrupts(), [(config, message(config))]);
    slot.assert_lawful();
}

#[test]
fn a_masked_entry_waits_until_the_mask_goes() {
    let (slot, mut lines) = running(net());
    slot.write32(2, 16 + 12, 1);
    transmit(&slot, &mut lines);
    assert_eq!(slot.interrupts(), [(0, message(0))]);
    assert_eq!(slot.read32(2, PENDING), 1 << 1);
    slot.write32(2, 16 + 12, 0);
    assert_eq!(slot.interrupts(), [(1, message(1))]);
    assert_eq!(slot.read32(2, PENDING), 0);
}

#[test]
fn a_masked_function_waits_until_the_mask_goes() {
    let (slot, mut lines) = running(net());
    set_control(&slot, ENABLE | MASK);
    transmit(&slot, &mut lines);
    assert_eq!(slot.interrupts(), []);
    assert_eq!(slot.read32(2, PENDING), 0b11);
    set_control(&slot, ENABLE);
    assert_eq!(slot.interrupts(), [(0, message(0)), (1, message(1))]);
}

#[test]
fn nothing_is_sent_without_bus_mastering() {
    let (slot, _lines) = running(net());
    slot.card.write_config(4, &2_u16.to_le_bytes());
    slot.card.change_config(|_| ());
    slot.card.write_config(4, &ON.to_le_bytes());
    assert_eq!(slot.interrupts(), []);
}

#[test]
fn an_entry_is_edited_only_while_it_is_masked() {
    let (slot, _lines) = running(net());
    slot.write32(2, 8, 1);
    slot.assert_blamed("edited unmasked");
    set_control(&slot, ENABLE | MASK);
    let before = slot.card.violations();
    slot.write32(2, 8, 2);
    assert_eq!(slot.card.violations(), before);
    slot.write32(2, PENDING, 1);
    slot.assert_blamed("written to MSI-X");
}

#[test]
fn the_isr_is_cleared_when_it_is_read() {
    let plan = Plan {
        vectors: 0,
        ..net()
    };
    let slot = Slot::new(plan);
    let mut lines = slot.start(0);
    assert_eq!(slot.read8(0, 0x40), 0);
    transmit(&slot, &mut lines);
    assert_eq!(slot.read8(0, 0x40), 1);
    assert_eq!(slot.read8(0, 0x40), 0);
    slot.card.change_config(|_| ());
    transmit(&slot, &mut lines);
    assert_eq!(slot.read8(0, 0x40), 3);
    assert_eq!(slot.interrupts(), []);
    slot.assert_lawful();
    slot.write8(0, 0x40, 0);
    slot.assert_blamed("where nothing can be");
}

#[test]
fn with_msix_the_isr_tells_of_the_configuration_alone() {
    let (slot, mut lines) = running(net());
    transmit(&slot, &mut lines);
    assert_eq!(slot.read8(0, 0x40), 0);
    slot.card.change_config(|_| ());
    assert_eq!(slot.read8(0, 0x40), 2);
}

#[test]
fn a_vector_that_does_not_exist_is_refused() {
    let slot = Slot::of(Product::N3000Net);
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
    let set = |vector: u16| {
        slot.write16(0, 0x10, vector);
        slot.write16(0, 0x1a, vector);
        (slot.read16(0, 0x10), slot.read16(0, 0x1a))
    };
    let vectors = slot.card.vectors();
    assert_eq!(set(vectors - 1), (vectors - 1, vectors - 1));
    assert_eq!(set(0xffff), (0xffff, 0xffff));
    let refused = Refused::Vectors(BTreeSet::from([1]));
    slot.card.set_faults(|faults| faults.refused = refused);
    assert_eq!([set(0), set(1)], [(0, 0), (0xffff, 0xffff)]);
    slot.card
        .set_faults(|faults| faults.refused = Refused::Everything);
    assert_eq!(set(0), (0xffff, 0xffff));
    slot.assert_lawful();
    assert_eq!(set(vectors), (0xffff, 0xffff));
    slot.assert_blamed("vector 6 of a table of 6");
}

#[test]
fn a_host_with_a_table_of_its_own_is_told_of_everything() {
    let plan = Plan {
        table: MsixTable::Hosts,
        ..net()
    };
    let slot = Slot::new(plan);
    set_control(&slot, ENABLE);
    let mut lines = slot.start(0);
    transmit(&slot, &mut lines);
    let vectors: Vec<_> = slot
        .interrupts()
        .iter()
        .map(|(vector, _)| *vector)
        .collect();
    assert_eq!(vectors, [0, 1]);
}
