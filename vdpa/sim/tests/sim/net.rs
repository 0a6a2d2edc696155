//! Frames through a card whose output is its input.

use vdpa::MacAddress;
use vdpa_sim::{CreateError, Link, Overrun, SimNet, SimNetConfig};
use virtio::DeviceStatus;
use virtio::net::F;

use crate::network::{
    BROADCAST, BUFFER, GROUP, HEADER, OTHER, OWN, RX, TX, all, config, drive, frame, sim_net,
};
use crate::world::{Variant, World, variants};

#[test]
fn what_is_sent_comes_back_whole_and_in_order() {
    for variant in variants() {
        let world = World::new();
        let (_, mut rig) = drive(&world, config(variant), variant, all());
        let mut number = 0;
        for round in 0..20 {
            rig.offer_buffers(RX, 16);
            let sent: Vec<_> = (0..16)
                .map(|index| {
                    number = u8::wrapping_add(number, 1);
                    frame(OWN, 60 + 97 * index, number)
                })
                .collect();
            for frame in &sent {
                rig.send(TX, frame);
            }
            world.run();
            for frame in &sent {
                assert_eq!(rig.receive(RX).as_ref(), Some(frame), "{variant:?} {round}");
                assert_eq!(rig.take(TX).unwrap().written, 0);
            }
            assert_eq!(rig.receive(RX), None);
        }
        let bytes: u64 = (0..16).map(|index| 60 + 97 * index).sum();
        for (queue, name, count) in [
            (0, "rx packets", 320),
            (0, "rx bytes", 20 * bytes),
            (0, "rx errors", 0),
            (0, "rx overruns", 0),
            (0, "rx drops", 0),
            (1, "tx packets", 320),
            (1, "tx bytes", 20 * bytes),
            (1, "tx errors", 0),
            (1, "tx drops", 0),
            (2, "cvq requests", 0),
        ] {
            assert_eq!(rig.count(queue, name), count, "{name}");
        }
        let device = rig.stop(&world);
        world.unregister(&device);
        assert_eq!(world.platform.heap().outstanding(), 0);
    }
}

#[test]
fn a_received_frame_has_a_header_of_one_buffer() {
    let world = World::new();
    let (_, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    rig.offer_buffers(RX, 1);
    rig.send(TX, &frame(OWN, 60, 1));
    world.run();
    let answer = rig.take(RX).unwrap();
    assert_eq!(answer.bytes[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(answer.written, HEADER + 60);
}

#[test]
fn only_frames_for_the_card_are_received() {
    let world = World::new();
    let (_, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    rig.offer_buffers(RX, 8);
    for (number, to) in (1..).zip([OTHER, OWN, OTHER, BROADCAST, GROUP]) {
        rig.send(TX, &frame(to, 60, number));
    }
    world.run();
    let received: Vec<u8> = std::iter::from_fn(|| rig.receive(RX))
        .map(|frame| frame[59])
        .collect();
    assert_eq!(received, [2, 4, 5]);
    assert_eq!(
        (rig.count(0, "rx drops"), rig.count(1, "tx packets")),
        (2, 5)
    );
}

#[test]
fn a_frame_waits_for_a_buffer() {
    for variant in variants() {
        let world = World::new();
        let (_, mut rig) = drive(&world, config(variant), variant, all());
        for number in 0..30 {
            rig.send(TX, &frame(OWN, 60, number));
        }
        world.run();
        assert!(rig.take(TX).is_none(), "nothing was sent");
        for number in 0..30 {
            rig.offer_buffers(RX, 1);
            world.run();
            assert_eq!(rig.receive(RX), Some(frame(OWN, 60, number)), "{variant:?}");
            assert_eq!(rig.receive(RX), None);
            assert!(rig.take(TX).is_some());
        }
        assert_eq!(
            (rig.count(0, "rx overruns"), rig.count(0, "rx packets")),
            (0, 30)
        );
    }
}

#[test]
fn a_frame_without_a_buffer_is_lost_where_that_is_wanted() {
    let world = World::new();
    let config = SimNetConfig {
        overrun: Overrun::Drop,
        ..config(Variant::BEST)
    };
    let (_, mut rig) = drive(&world, config, Variant::BEST, all());
    rig.offer_buffers(RX, 2);
    for number in 0..5 {
        rig.send(TX, &frame(OWN, 60, number));
    }
    world.run();
    for number in 0..2 {
        assert_eq!(rig.receive(RX), Some(frame(OWN, 60, number)));
    }
    assert_eq!(rig.receive(RX), None);
    assert_eq!(
        (rig.count(0, "rx overruns"), rig.count(0, "rx packets")),
        (3, 2)
    );
    assert_eq!((0..5).filter(|_| rig.take(TX).is_some()).count(), 5);
}

#[test]
fn a_frame_is_put_into_several_buffers() {
    for variant in variants() {
        let world = World::new();
        let (_, mut rig) = drive(&world, config(variant), variant, all() | F::MRG_RXBUF);
        let sent = frame(OWN, 1000, 7);
        // Too few at first, in two pieces each: nothing is used before the last is there.
        for _ in 0..3 {
            rig.offer(RX, &[], &[100, 200]);
        }
        rig.kick(RX);
        rig.send(TX, &sent);
        world.run();
        assert!(
            rig.take(RX).is_none() && rig.take(TX).is_none(),
            "{variant:?}"
        );
        rig.offer(RX, &[], &[300]);
        rig.kick(RX);
        world.run();
        let parts: Vec<_> = std::iter::from_fn(|| rig.take(RX)).collect();
        assert_eq!(
            parts.iter().map(|part| part.written).collect::<Vec<_>>(),
            [300, 300, 300, 112]
        );
        assert_eq!(parts[0].bytes[10..12], [4, 0]);
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|part| part.bytes[..part.written].to_vec())
            .collect();
        assert!(bytes[HEADER..] == sent, "{variant:?}");
        // One that is large enough is still one.
        rig.offer_buffers(RX, 1);
        rig.send(TX, &sent);
        world.run();
        assert_eq!(rig.receive(RX), Some(sent));
    }
}

#[test]
fn buffers_that_are_no_use_are_given_back_empty() {
    let world = World::new();
    let (_, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    // Too small without merging; nothing to write to.
    rig.offer(RX, &[], &[HEADER + 59]);
    rig.offer(RX, &[&[1; 100]], &[]);
    rig.kick(RX);
    for number in 0..2 {
        rig.send(TX, &frame(OWN, 60, number));
    }
    world.run();
    for _ in 0..2 {
        assert_eq!(rig.take(RX).unwrap().written, 0);
    }
    assert_eq!(rig.count(0, "rx errors"), 2);

    let (_, mut rig) = drive(
        &world,
        config(Variant::BEST),
        Variant::BEST,
        all() | F::MRG_RXBUF,
    );
    // A frame takes at most 16 buffers.
    for _ in 0..17 {
        rig.offer(RX, &[], &[20]);
    }
    rig.kick(RX);
    rig.send(TX, &frame(OWN, 1000, 1));
    world.run();
    assert_eq!(
        (0..17)
            .filter_map(|_| rig.take(RX))
            .map(|answer| answer.written)
            .sum::<usize>(),
        0
    );
    assert_eq!(rig.count(0, "rx errors"), 1);
}

#[test]
fn what_is_no_frame_is_not_sent() {
    let world = World::new();
    let (_, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    rig.offer_buffers(RX, 16);
    let long = frame(OWN, 1500 + 14 + 4 + 1, 1);
    let whole = frame(OWN, 60, 1);
    let gso = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    let bad: [&[&[u8]]; 6] = [
        &[&[0; HEADER - 1]],
        &[&[0; HEADER], &whole[..13]],
        &[&[0; HEADER], &long],
        // Neither was negotiated.
        &[&gso, &whole],
        &[&checksum, &whole],
        &[],
    ];
    for parts in bad {
        let writable: &[usize] = if parts.is_empty() { &[8] } else { &[] };
        let answer = rig.exchange(&world, TX, parts, writable);
        assert_eq!(answer.written, 0);
    }
    assert_eq!(
        (rig.count(1, "tx errors"), rig.count(1, "tx packets")),
        (6, 0)
    );
    rig.send(TX, &long[..long.len() - 1]);
    world.run();
    assert!(rig.receive(RX).is_some());
}

#[test]
fn a_checksum_is_finished_for_who_does_not_take_it_unfinished() {
    // An IPv4 and UDP header with the sum of the pseudo-header in the checksum's place.
    let mut sent = frame(OWN, 64, 3);
    sent[40..42].copy_from_slice(&[0x12, 0x34]);
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    let sum = |frame: &[u8]| {
        let words = frame[34..].chunks(2);
        let sum: u32 = words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        (sum & 0xffff) + (sum >> 16)
    };
    let pseudo = sum(&sent) - 0x1234;
    for (features, finished) in [(F::CSUM, true), (F::CSUM | F::GUEST_CSUM, false)] {
        let world = World::new();
        let (_, mut rig) = drive(
            &world,
            config(Variant::BEST),
            Variant::BEST,
            all() | features,
        );
        rig.offer_buffers(RX, 2);
        rig.exchange(&world, TX, &[&header, &sent], &[]);
        let answer = rig.take(RX).unwrap();
        let frame = &answer.bytes[HEADER..answer.written];
        if finished {
            assert_eq!(answer.bytes[0], 0);
            // What was there has gone into the sum: everything but the checksum, plus 0x1234, plus
            // the checksum.
            let total = pseudo + 0x1234 + u32::from(u16::from_be_bytes([frame[40], frame[41]]));
            assert_eq!((total & 0xffff) + (total >> 16), 0xffff);
        } else {
            assert_eq!(answer.bytes[..10], header[..10]);
            assert_eq!(frame, sent);
        }
        // A checksum beyond the frame is refused.
        let outside = [1, 0, 0, 0, 0, 0, 60, 0, 3, 0, 0, 0];
        rig.exchange(&world, TX, &[&outside, &sent], &[]);
        assert_eq!(rig.count(1, "tx errors"), 1);
    }
}

#[test]
fn a_card_that_is_not_connected_loses_what_it_sends_and_says_so() {
    let world = World::new();
    let (handle, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    let status = |rig: &crate::world::Rig| {
        let mut status = [0; 2];
        rig.device.read_config(6, &mut status).unwrap();
        status
    };
    assert_eq!(status(&rig), [1, 0]);
    let generation = rig.device.config_generation().unwrap();
    handle.set_link(Link::Up);
    assert!(!rig.config_event.take(), "it was up");
    handle.set_link(Link::Down);
    assert!(rig.config_event.take());
    assert_ne!(rig.device.config_generation().unwrap(), generation);
    assert_eq!(status(&rig), [0, 0]);
    rig.offer_buffers(RX, 1);
    rig.send(TX, &frame(OWN, 60, 1));
    world.run();
    assert!(rig.take(TX).is_some() && rig.take(RX).is_none());
    assert_eq!(rig.count(1, "tx drops"), 1);
    handle.set_link(Link::Up);
    rig.send(TX, &frame(OWN, 60, 2));
    world.run();
    assert_eq!(rig.receive(RX), Some(frame(OWN, 60, 2)));
}

#[test]
fn without_a_receive_queue_frames_are_lost() {
    let world = World::new();
    let (_, ops) = sim_net(&world, config(Variant::BEST));
    let mut rig = world.drive(ops, Variant::BEST, all(), &[1]);
    rig.send(0, &frame(OWN, 60, 1));
    world.run();
    assert!(rig.take(0).is_some());
    assert_eq!(rig.count(0, "rx drops"), 1);
}

#[test]
fn a_busy_card_lets_others_work() {
    let world = World::new();
    let (_, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    rig.offer_buffers(RX, 60);
    rig.arm();
    for _ in 0..2 {
        for number in 0..30 {
            rig.send(TX, &frame(OWN, 1500, number));
        }
        world.run();
        assert_eq!((0..30).filter_map(|_| rig.receive(RX)).count(), 30);
        while rig.take(TX).is_some() {}
    }
    assert_eq!(rig.lines[RX].event.count(), 1);
    assert!(!rig.status().contains(DeviceStatus::DEVICE_NEEDS_RESET));
}

#[test]
fn the_address_can_be_changed_from_outside() {
    let world = World::new();
    let (handle, mut rig) = drive(&world, config(Variant::BEST), Variant::BEST, all());
    assert_eq!(handle.set_mac(MacAddress(GROUP)), Err(CreateError::BadMac));
    assert!(!rig.config_event.take());
    handle.set_mac(MacAddress(OTHER)).unwrap();
    assert!(rig.config_event.take());
    let mut mac = [0; 6];
    rig.device.read_config(0, &mut mac).unwrap();
    assert_eq!(mac, OTHER);
    rig.offer_buffers(RX, 2);
    rig.send(TX, &frame(OWN, 60, 1));
    rig.send(TX, &frame(OTHER, 60, 2));
    world.run();
    assert_eq!(rig.receive(RX), Some(frame(OTHER, 60, 2)));
    let device = rig.stop(&world);
    device.read_config(0, &mut mac).unwrap();
    assert_eq!(mac, OTHER);
}

#[test]
fn an_impossible_card_is_not_made() {
    let world = World::new();
    let refused = |change: &dyn Fn(&mut SimNetConfig)| {
        let mut config = config(Variant::BEST);
        change(&mut config);
        let error = SimNet::new(config, &world.kernel()).err();
        assert!(world.platform.tasks().is_empty());
        error
    };
    assert_eq!(
        refused(&|config| config.mac = MacAddress(GROUP)),
        Some(CreateError::BadMac)
    );
    assert_eq!(
        refused(&|config| config.mac = MacAddress([0; 6])),
        Some(CreateError::BadMac)
    );
    assert_eq!(
        refused(&|config| config.mtu = 67),
        Some(CreateError::BadMtu)
    );
    for pairs in [0, 33] {
        assert_eq!(
            refused(&|config| config.queue_pairs = pairs),
            Some(CreateError::BadQueueCount)
        );
    }
    // A feature that the card does not have, one that it needs, one without the one that it needs.
    let all = SimNet::features();
    let without = |feature: vdpa::Features| all.difference(feature);
    for features in [
        all | F::GUEST_TSO4.into(),
        without(virtio::F::VERSION_1.into()),
        without(virtio::F::ACCESS_PLATFORM.into()),
        without(F::CTRL_VQ.into()),
    ] {
        let error = refused(&|config| config.sim.features = Some(features));
        assert_eq!(error, Some(CreateError::BadFeatures), "{features:?}");
    }
    let (_, ops) = sim_net(
        &world,
        SimNetConfig {
            sim: vdpa_sim::SimConfig {
                features: Some(without(F::MRG_RXBUF.into())),
                ..Variant::BEST.sim()
            },
            ..config(Variant::BEST)
        },
    );
    assert_eq!(ops.device_features(), without(F::MRG_RXBUF.into()));
    const { assert!(BUFFER > 1518 + HEADER) };
}
