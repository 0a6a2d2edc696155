//! The statements of VIRTIO 1.2, sections 2 to 4, that a driver must keep to: one that breaks a
//! statement is caught, by its section, and one that breaks none is not.

mod order;
mod packed;
mod queues;
mod raw;
mod registers;
mod split;

use ifcvf_card::{Delay, IdleWrites, Plan, Product, VectorOf};

use crate::slot::{ACKNOWLEDGE, DRIVER, FEATURES_OK, Slot, VERSION_1};

/// What breaks a statement: the section, words of the sentence, and a driver that does it.
type Case<D> = (&'static str, &'static str, fn(&D));

const EVENT_IDX: u128 = 1 << 29;
const INDIRECT: u128 = 1 << 28;
const PACKED: u128 = 1 << 34;
const IN_ORDER: u128 = 1 << 35;
const NOTIFICATION_DATA: u128 = 1 << 38;
const RING_RESET: u128 = 1 << 40;

fn net() -> Plan {
    Plan::new(Product::VirtioNet)
}

/// A driver may know what it drives.
fn drive(slot: &Slot) {
    slot.reset();
    slot.set_status(ACKNOWLEDGE);
    slot.set_status(ACKNOWLEDGE | DRIVER);
}

/// Features have been agreed on.
fn settle(slot: &Slot) {
    assert!(slot.negotiate(VERSION_1));
}

/// `FEATURES_OK` was written, and not read.
fn half_settle(slot: &Slot) {
    drive(slot);
    slot.set_features(VERSION_1);
    slot.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

/// The first that the driver is blamed for is this.
#[track_caller]
fn assert_caught(slot: &Slot, section: &str, words: &str) {
    let violations = slot.card.violations();
    let first = violations.first().map_or("", String::as_str);
    let start = format!("VIRTIO 1.2, {section}: ");
    assert!(
        first.starts_with(&start) && first.contains(words),
        "not {section} ({words}): {violations:?}"
    );
}

#[track_caller]
fn check(cases: &[Case<Slot>]) {
    for (section, words, breaks) in cases {
        let slot = Slot::new(net());
        breaks(&slot);
        assert_caught(&slot, section, words);
    }
}

#[test]
fn a_driver_that_keeps_to_the_statements_is_not_blamed() {
    let rings = [
        0,
        EVENT_IDX | INDIRECT,
        PACKED,
        PACKED | EVENT_IDX | INDIRECT,
        IN_ORDER,
        PACKED | IN_ORDER,
    ];
    for features in rings {
        let slot = Slot::new(net());
        let mut lines = slot.start(features);
        for round in 0..40 {
            lines[0].offer(&[], 100);
            slot.kick(0);
            lines[1].offer(&[0; 72], 0);
            slot.kick(1);
            assert_eq!(lines[0].take().unwrap().0, 72, "{features:#x}, {round}");
            lines[1].take().unwrap();
        }
        slot.assert_lawful();
        slot.reset();
    }
}

#[test]
fn a_queue_that_was_reset_is_set_up_again() {
    for delay in [Delay::AtOnce, Delay::After(3)] {
        let slot = Slot::new(net());
        slot.card.set_faults(|faults| faults.queue_reset = delay);
        let lines = slot.start(RING_RESET);
        slot.write16(0, 0x16, 1);
        slot.write16(0, 0x3a, 1);
        while slot.read16(0, 0x3a) != 0 {}
        assert_eq!(
            [0x18, 0x1a, 0x1c].map(|at| slot.read16(0, at)),
            [256, 0xffff, 0]
        );
        slot.place(1, &lines[1]);
        slot.enable(1);
        assert_eq!(slot.read16(0, 0x1c), 1);
        slot.assert_lawful();
        slot.reset();
    }
}

/// As in Cloud Hypervisor: a write that is too early has no effect.
#[test]
fn a_device_can_forget_what_was_written_while_it_was_idle() {
    let slot = Slot::new(Plan {
        idle_writes: IdleWrites::Reset,
        ..net()
    });
    slot.reset();
    slot.write32(0, 0, 1);
    assert_eq!(slot.read32(0, 0), 0, "the select is lost");
    let low = u128::from(slot.read32(0, 4));
    assert_eq!(low, net().features & 0xffff_ffff);
    slot.set_status(ACKNOWLEDGE);
    slot.set_status(ACKNOWLEDGE | DRIVER);
    slot.write32(0, 0, 1);
    assert_eq!(u128::from(slot.read32(0, 4)), net().features >> 32);
}

#[test]
fn a_device_can_take_the_vector_when_a_queue_is_enabled() {
    for (vector_of, expected) in [(VectorOf::Enable, 1), (VectorOf::Register, 2)] {
        let slot = Slot::new(Plan {
            vector_of,
            table: ifcvf_card::MsixTable::Hosts,
            ..net()
        });
        let at = slot.config16(0x34) & 0xff;
        slot.card.write_config(at + 2, &0x8000_u16.to_le_bytes());
        let mut lines = slot.start(0);
        slot.write16(0, 0x16, 1);
        slot.write16(0, 0x1a, 2);
        slot.assert_blamed("VIRTIO 1.2, 4.1.4.3.2: queue_msix_vector");
        slot.interrupts();
        lines[0].offer(&[], 100);
        slot.kick(0);
        lines[1].offer(&[0; 72], 0);
        slot.kick(1);
        let vectors = slot.interrupts().into_iter().map(|(vector, _)| vector);
        assert!(
            vectors.collect::<Vec<_>>().contains(&expected),
            "{vector_of:?}"
        );
        slot.reset();
    }
}
