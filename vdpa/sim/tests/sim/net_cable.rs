//! Two cards back to back.

use vdpa::MacAddress;
use vdpa_sim::{Cable, Link, Overrun, SimNet, SimNetConfig, Wiring};
use virtio::net::F;

use crate::network::{OTHER, OWN, RX, TX, all, config, drive, frame};
use crate::world::{Rig, Variant, World};

/// A card with the address `OWN` and one with `OTHER`, in this order.
fn pair(world: &World, overrun: Overrun) -> [(SimNet, Rig); 2] {
    let (one, other) = Cable::new();
    [(one, OWN, Variant::BEST), (other, OTHER, Variant::SPLIT)].map(|(end, mac, variant)| {
        let config = SimNetConfig {
            mac: MacAddress(mac),
            wiring: Wiring::Cable(end),
            overrun,
            ..config(variant)
        };
        drive(world, config, variant, all())
    })
}

#[test]
fn what_one_sends_the_other_receives() {
    let world = World::new();
    let [(_, mut one), (_, mut other)] = pair(&world, Overrun::Wait);
    for round in 0..5u8 {
        other.offer_buffers(RX, 50);
        one.offer_buffers(RX, 3);
        for number in 0..50 {
            one.send(TX, &frame(OTHER, 60 + usize::from(number), number));
        }
        other.send(TX, &frame(OWN, 100, round));
        world.run();
        for number in 0..50 {
            let sent = frame(OTHER, 60 + usize::from(number), number);
            assert_eq!(other.receive(RX), Some(sent));
            assert!(one.take(TX).is_some());
        }
        assert_eq!(one.receive(RX), Some(frame(OWN, 100, round)));
        assert!(other.take(TX).is_some());
        assert_eq!((one.receive(RX), other.receive(RX)), (None, None));
    }
    assert_eq!(
        (one.count(1, "tx packets"), other.count(0, "rx packets")),
        (250, 250)
    );
    // Not its own address: it is not in a loop any more.
    one.send(TX, &frame(OWN, 60, 0));
    world.run();
    assert_eq!(other.count(0, "rx drops"), 1);
}

#[test]
fn a_sender_waits_for_its_receiver() {
    let world = World::new();
    let [(_, mut one), (_, mut other)] = pair(&world, Overrun::Wait);
    let mut sent = 0u32;
    let mut done = 0;
    // The cable holds some frames, and then the sender's queue fills up.
    while one.lines[TX].ring.free() > 2 {
        let mut bytes = frame(OTHER, 60, 0);
        bytes[20..24].copy_from_slice(&sent.to_le_bytes());
        one.send(TX, &bytes);
        sent += 1;
        world.run();
        while one.take(TX).is_some() {
            done += 1;
        }
    }
    assert!(sent > done && done > 0, "{sent} {done}");
    for number in 0..sent {
        other.offer_buffers(RX, 1);
        world.run();
        let got = other.receive(RX).unwrap();
        assert_eq!(got[20..24], number.to_le_bytes());
    }
    assert_eq!(one.count(1, "tx drops") + other.count(0, "rx overruns"), 0);
    while one.take(TX).is_some() {
        done += 1;
    }
    assert_eq!(done, sent);
}

#[test]
fn frames_are_lost_and_counted_where_that_is_wanted() {
    let world = World::new();
    let [(_, mut one), (_, mut other)] = pair(&world, Overrun::Drop);
    other.offer_buffers(RX, 1);
    for number in 0..5 {
        one.send(TX, &frame(OTHER, 60, number));
    }
    world.run();
    assert_eq!(other.receive(RX), Some(frame(OTHER, 60, 0)));
    assert_eq!(other.count(0, "rx overruns"), 4);
}

#[test]
fn nobody_waits_for_a_card_that_does_not_receive() {
    let world = World::new();
    let [(_, mut one), (_, other)] = pair(&world, Overrun::Wait);
    // Until the cable is full, and the sender's queue.
    while one.lines[TX].ring.free() > 2 {
        one.send(TX, &frame(OTHER, 60, 1));
        world.run();
        while one.take(TX).is_some() {}
    }
    let device = other.stop(&world);
    world.run();
    while one.take(TX).is_some() {}
    assert_eq!(one.lines[TX].ring.in_flight(), 0);
    let lost = one.count(1, "tx drops");
    assert!(lost > 0);
    // Neither for one that is gone.
    world.unregister(&device);
    one.send(TX, &frame(OTHER, 60, 0));
    world.run();
    assert!(one.take(TX).is_some());
    assert_eq!(one.count(1, "tx drops"), lost + 1);
}

#[test]
fn a_card_whose_link_is_down_receives_nothing() {
    let world = World::new();
    let [(_, mut one), (handle, mut other)] = pair(&world, Overrun::Wait);
    handle.set_link(Link::Down);
    other.offer_buffers(RX, 2);
    one.send(TX, &frame(OTHER, 60, 1));
    world.run();
    assert_eq!((other.receive(RX), other.count(0, "rx drops")), (None, 1));
    handle.set_link(Link::Up);
    one.send(TX, &frame(OTHER, 60, 2));
    world.run();
    assert_eq!(other.receive(RX), Some(frame(OTHER, 60, 2)));
}

#[test]
fn a_checksum_is_finished_for_the_receiver_not_for_the_sender() {
    let world = World::new();
    let (one, other) = Cable::new();
    let [mut one, mut other] = [
        (one, OWN, F::CSUM | F::GUEST_CSUM),
        (other, OTHER, F::empty()),
    ]
    .map(|(end, mac, features)| {
        let config = SimNetConfig {
            mac: MacAddress(mac),
            wiring: Wiring::Cable(end),
            ..config(Variant::BEST)
        };
        drive(&world, config, Variant::BEST, all() | features).1
    });
    other.offer_buffers(RX, 1);
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    one.exchange(&world, TX, &[&header, &frame(OTHER, 64, 9)], &[]);
    let answer = other.take(RX).unwrap();
    assert_eq!(answer.bytes[0], 0);
    assert_ne!(answer.bytes[12 + 40..12 + 42], [9, 9]);
}

#[test]
fn a_cable_can_be_plugged_into_a_running_card() {
    let world = World::new();
    let (one, other) = Cable::new();
    let (first, mut first_rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    let config = SimNetConfig {
        mac: MacAddress(OTHER),
        wiring: Wiring::Cable(other),
        ..config(Variant::BEST)
    };
    let (_, mut second_rig) = drive(&world, config, Variant::BEST, all());
    first_rig.offer_buffers(RX, 2);
    second_rig.offer_buffers(RX, 2);
    second_rig.send(TX, &frame(OWN, 60, 1));
    world.run();
    assert_eq!(second_rig.count(1, "tx drops"), 1);
    first.plug(one);
    second_rig.send(TX, &frame(OWN, 60, 2));
    first_rig.send(TX, &frame(OTHER, 60, 3));
    world.run();
    assert_eq!(first_rig.receive(RX), Some(frame(OWN, 60, 2)));
    assert_eq!(second_rig.receive(RX), Some(frame(OTHER, 60, 3)));
    // And into another one, which pulls it out here.
    let (third, _) = Cable::new();
    first.plug(third);
    second_rig.send(TX, &frame(OWN, 60, 4));
    world.run();
    assert_eq!(
        (first_rig.receive(RX), second_rig.count(1, "tx drops")),
        (None, 2)
    );
}
