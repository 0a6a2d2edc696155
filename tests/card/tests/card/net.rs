//! The network function (VIRTIO 1.2, 5.1).

use ifcvf_card::{Plan, Product};

use crate::slot::{Line, Slot};

const EVENT_IDX: u128 = 1 << 29;
const INDIRECT_DESC: u128 = 1 << 28;
const CTRL_VQ: u128 = 1 << 17;
const MQ: u128 = 1 << 22;
const CONTROL: u128 = CTRL_VQ | MQ | 1 << 18 | 1 << 23;
const HEADER: usize = 12;

fn frame(number: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend((0..len).map(|at| number ^ at.to_le_bytes()[0]));
    bytes
}

/// What comes back when this is sent.
fn echoed(sent: &[u8]) -> Vec<u8> {
    let mut bytes = sent.to_vec();
    bytes[10] = 1;
    bytes
}

#[test]
fn what_is_sent_comes_back_on_the_same_pair() {
    for features in [0, EVENT_IDX, EVENT_IDX | INDIRECT_DESC] {
        let slot = Slot::of(Product::N3000Net);
        let mut lines = slot.start(features | CTRL_VQ | MQ);
        for round in 0..40 {
            for pair in [0, 2] {
                let sent = frame(round + u8::try_from(pair).unwrap(), 60 + usize::from(round));
                lines[pair].offer(&[], 1526);
                slot.kick(u16::try_from(pair).unwrap());
                lines[pair + 1].offer(&sent, 0);
                slot.kick(u16::try_from(pair + 1).unwrap());
                let (written, bytes) = lines[pair].take().unwrap();
                assert_eq!(bytes[..written], echoed(&sent));
                assert_eq!(lines[pair + 1].take().unwrap().0, 0);
            }
        }
        assert!(lines.iter_mut().all(|line| line.take().is_none()));
        assert_eq!(slot.card.counters().sent(), 80);
        assert_eq!(slot.card.counters().received(), 80);
        slot.assert_lawful();
    }
}

#[test]
fn a_frame_waits_with_its_driver_until_there_is_room_for_it() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    for number in 0..3 {
        lines[1].offer(&frame(number, 60), 0);
    }
    slot.kick(1);
    assert!(lines[1].take().is_none());
    for number in 0..3 {
        lines[0].offer(&[], 1526);
        slot.kick(0);
        let (written, bytes) = lines[0].take().unwrap();
        assert_eq!(bytes[..written], echoed(&frame(number, 60)));
        assert!(lines[1].take().is_some());
    }
}

#[test]
fn a_frame_without_room_is_dropped() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    lines[0].offer(&[], 64);
    slot.kick(0);
    lines[1].offer(&frame(1, 100), 0);
    slot.kick(1);
    assert!(lines[0].take().is_none());
    assert_eq!(slot.card.counters().dropped(), 1);
    lines[1].offer(&frame(2, 52), 0);
    slot.kick(1);
    assert_eq!(lines[0].take().unwrap().0, 64);
}

#[test]
fn nothing_is_served_that_was_not_notified_of() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    lines[0].offer(&[], 100);
    lines[1].offer(&frame(1, 60), 0);
    slot.kick(1);
    assert!(lines[1].take().is_none());
    slot.kick(0);
    assert!(lines[0].take().is_some() && lines[1].take().is_some());
}

#[test]
fn receive_buffers_are_taken_ahead_up_to_a_limit() {
    let slot = Slot::new(Plan {
        prefetch: 3,
        ..Plan::new(Product::N3000Net)
    });
    let mut lines = slot.start(0);
    for _ in 0..8 {
        lines[0].offer(&[], 100);
    }
    slot.kick(0);
    slot.stop(0);
    assert_eq!(slot.read32(4, 0x20), 3);
}

#[test]
fn offloads_that_were_not_offered_are_noticed() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    lines[0].offer(&[], 100);
    slot.kick(0);
    let mut bytes = frame(1, 60);
    bytes[0] = 1;
    lines[1].offer(&bytes, 0);
    slot.kick(1);
    slot.assert_blamed("header");
}

/// What the card answers to a command.
fn ask(slot: &Slot, queue: u16, line: &mut Line, command: &[u8]) -> u8 {
    line.offer(command, 1);
    slot.kick(queue);
    let (written, answer) = line.take().unwrap();
    assert_eq!(written, 1);
    answer[0]
}

#[test]
fn commands_are_obeyed_or_refused() {
    const OK: u8 = 0;
    const ERR: u8 = 1;
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(CONTROL);
    let mut ask = |command: &[u8]| ask(&slot, 4, &mut lines[4], command);
    assert_eq!(ask(&[0, 0, 1]), OK);
    assert_eq!(ask(&[0, 1, 1]), OK);
    assert_eq!(ask(&[0, 0, 2]), ERR);
    assert_eq!(ask(&[0, 7, 1]), ERR);
    assert_eq!(ask(&[1, 1, 2, 0, 0, 0, 0, 9]), OK);
    assert_eq!(ask(&[1, 1, 3, 0, 0, 0, 0, 9]), ERR);
    assert_eq!(ask(&[1, 1, 2, 0, 0, 0, 0]), ERR);
    let table = [1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 7, 0, 0, 0, 0];
    assert_eq!(ask(&table), OK);
    assert_eq!(ask(&table[..15]), ERR);
    assert_eq!(ask(&[1, 0, 0xff, 0xff, 0xff, 0xff]), ERR);
    assert_eq!(ask(&[4, 0, 2, 0]), OK);
    assert_eq!(ask(&[4, 0, 3, 0]), ERR);
    assert_eq!(ask(&[4, 0, 0, 0]), ERR);
    assert_eq!(ask(&[77, 0]), ERR);
    assert_eq!(ask(&[4]), ERR);
    let settings = slot.card.settings();
    assert!(settings.promiscuous && settings.all_multicast);
    assert_eq!((settings.mac, settings.pairs), ([2, 0, 0, 0, 0, 9], 2));
    slot.assert_lawful();
    slot.set_status(0);
    assert_eq!(slot.card.settings().pairs, 1);
}

#[test]
fn without_multiqueue_the_control_queue_is_the_third() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(CONTROL & !MQ);
    assert_eq!(ask(&slot, 2, &mut lines[2], &[0, 0, 1]), 0);
    // Nor can one ask for more pairs.
    assert_eq!(ask(&slot, 2, &mut lines[2], &[4, 0, 2, 0]), 1);
    lines[4].offer(&[0, 0, 0], 1);
    slot.kick(4);
    assert!(lines[4].take().is_none());
    slot.assert_lawful();
}
