//! The control queue of a card.

use vdpa::ops::OpError;
use vdpa_sim::SimNetConfig;
use virtio::net::F;

use crate::network::{
    BROADCAST, CONTROL, GROUP, OTHER, OWN, RX, TX, all, config, drive, frame, sim_net,
};
use crate::world::{Rig, Variant, World, variants};

const RX_MODE: u8 = 0;
const MAC: u8 = 1;
const MQ: u8 = 4;

fn card(world: &World, variant: Variant) -> Rig {
    drive(world, config(variant), variant, all()).1
}

/// Which of the frames to these addresses are received.
fn received(world: &World, rig: &mut Rig, to: &[[u8; 6]]) -> Vec<usize> {
    rig.offer_buffers(RX, to.len());
    let mut passed = Vec::new();
    for (index, to) in to.iter().enumerate() {
        let sent = frame(*to, 60, 1);
        rig.send(TX, &sent);
        world.run();
        assert!(rig.take(TX).is_some());
        if let Some(got) = rig.receive(RX) {
            assert_eq!(got, sent);
            passed.push(index);
        }
    }
    passed
}

#[test]
fn the_driver_can_change_the_address() {
    for variant in variants() {
        let world = World::new();
        let mut rig = card(&world, variant);
        assert!(rig.command(&world, MAC, 1, &OTHER));
        let mut mac = [0; 6];
        rig.device.read_config(0, &mut mac).unwrap();
        assert_eq!(mac, OTHER);
        assert_eq!(received(&world, &mut rig, &[OWN, OTHER]), [1]);
        // Until the next reset.
        let device = rig.stop(&world);
        device.read_config(0, &mut mac).unwrap();
        assert_eq!(mac, OWN);
    }
}

#[test]
fn receive_modes_and_tables_are_followed() {
    let world = World::new();
    let mut rig = card(&world, Variant::BEST);
    let second_group = [0x33, 0x33, 0, 0, 0, 2];
    let to = [OWN, OTHER, BROADCAST, GROUP, second_group];
    assert_eq!(received(&world, &mut rig, &to), [0, 2, 3, 4]);
    let table = |unicast: &[[u8; 6]], multicast: &[[u8; 6]]| {
        let mut bytes = Vec::new();
        for list in [unicast, multicast] {
            bytes.extend(u32::try_from(list.len()).unwrap().to_le_bytes());
            bytes.extend(list.concat());
        }
        bytes
    };
    assert!(rig.command(&world, MAC, 0, &table(&[], &[GROUP])));
    assert_eq!(received(&world, &mut rig, &to), [0, 2, 3]);
    assert!(rig.command(&world, MAC, 0, &table(&[OTHER], &[])));
    assert_eq!(received(&world, &mut rig, &to), [0, 1, 2]);
    assert!(rig.command(&world, RX_MODE, 1, &[1]));
    assert_eq!(received(&world, &mut rig, &to), [0, 1, 2, 3, 4]);
    assert!(rig.command(&world, MAC, 0, &table(&[], &[])));
    assert!(rig.command(&world, RX_MODE, 1, &[0]));
    assert_eq!(received(&world, &mut rig, &to), [0, 2]);
    assert!(rig.command(&world, RX_MODE, 0, &[1]));
    assert_eq!(received(&world, &mut rig, &to), [0, 1, 2, 3, 4]);
    assert!(rig.command(&world, RX_MODE, 0, &[0]));
    // More than the card remembers, cut anywhere: all groups pass.
    let many: Vec<[u8; 6]> = (0..100).map(|last| [0x33, 0x33, 1, 0, 0, last]).collect();
    assert!(rig.command(&world, MAC, 0, &table(&[], &many)));
    assert_eq!(received(&world, &mut rig, &to), [0, 2, 3, 4]);
    // A table that is not all there changes nothing.
    let mut cut = table(&[], &[]);
    cut[4] = 1;
    for bytes in [&cut[..], &cut[..7], &[0xff; 10]] {
        assert!(!rig.command(&world, MAC, 0, bytes));
    }
    assert_eq!(received(&world, &mut rig, &to), [0, 2, 3, 4]);
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let world = World::new();
    let mut rig = card(&world, Variant::BEST);
    let refused: [(u8, u8, &[u8]); 10] = [
        (99, 0, &[]),
        (RX_MODE, 0, &[2]),
        (RX_MODE, 0, &[]),
        (RX_MODE, 2, &[1]),
        (MAC, 1, &OWN[..5]),
        (MAC, 1, &GROUP),
        (MAC, 2, &OTHER),
        (2, 0, &[1, 0]),
        // Not negotiated.
        (MQ, 0, &[1, 0]),
        (5, 0, &[0; 8]),
    ];
    for (class, command, data) in refused {
        assert!(
            !rig.command(&world, class, command, data),
            "{class} {command}"
        );
    }
    // A header that is too short is answered, too; without room for an answer the chain comes back.
    let answer = rig.exchange(&world, CONTROL, &[&[RX_MODE]], &[1]);
    assert_eq!((answer.written, answer.bytes), (1, vec![1]));
    let answer = rig.exchange(&world, CONTROL, &[], &[1]);
    assert_eq!(answer.bytes, [1]);
    let answer = rig.exchange(&world, CONTROL, &[&[RX_MODE, 0, 1]], &[]);
    assert_eq!(answer.written, 0);
    assert!(rig.command(&world, RX_MODE, 0, &[0]));
    for (name, count) in [
        ("cvq requests", 14),
        ("cvq successes", 1),
        ("cvq errors", 13),
    ] {
        assert_eq!(rig.count(2, name), count, "{name}");
    }
}

#[test]
fn pairs_of_queues_are_used_as_the_driver_says() {
    let world = World::new();
    let config = SimNetConfig {
        queue_pairs: 3,
        ..config(Variant::BEST)
    };
    let (_, ops) = sim_net(&world, config);
    // Without several queues the control queue is the third, with them the last.
    assert_eq!(
        (ops.queue_count(), ops.queue_group(2), ops.queue_group(6)),
        (7, 0, 1)
    );
    let mut rig = world.drive(ops, Variant::BEST, all() | F::MQ, &[0, 1, 6, 2, 3, 4, 5]);
    let (rx_2, tx_2, rx_3, tx_3) = (3, 4, 5, 6);
    let mut pairs = [0; 2];
    rig.device.read_config(8, &mut pairs).unwrap();
    assert_eq!(pairs, [3, 0]);
    for rx in [RX, rx_2, rx_3] {
        rig.offer_buffers(rx, 8);
    }
    rig.send(tx_2, &frame(OWN, 60, 2));
    world.run();
    assert!(rig.take(tx_2).is_none(), "one pair is in use after a reset");
    for bad in [[0, 0], [4, 0], [1, 1]] {
        assert!(!rig.command(&world, MQ, 0, &bad));
    }
    assert!(rig.command(&world, MQ, 0, &[2, 0]));
    rig.send(TX, &frame(OWN, 60, 1));
    rig.send(tx_3, &frame(OWN, 60, 3));
    world.run();
    assert_eq!(rig.receive(RX), Some(frame(OWN, 60, 1)));
    assert_eq!(rig.receive(rx_2), Some(frame(OWN, 60, 2)));
    assert_eq!(rig.receive(rx_3), None);
    assert!(rig.command(&world, MQ, 0, &[3, 0]));
    world.run();
    assert_eq!(rig.receive(rx_3), Some(frame(OWN, 60, 3)));
    assert_eq!(
        (rig.count(2, "rx packets"), rig.count(6, "cvq requests")),
        (1, 5)
    );
}

#[test]
fn features_that_need_another_one_are_refused_without_it() {
    let world = World::new();
    let (_, ops) = sim_net(&world, config(Variant::BEST));
    let device = world.register(ops);
    world.platform.block_on(async {
        device.reset().await.unwrap();
        let status = virtio::DeviceStatus::ACKNOWLEDGE | virtio::DeviceStatus::DRIVER;
        device.set_status(status).await.unwrap();
        for feature in [F::MQ, F::CTRL_MAC_ADDR, F::CTRL_RX] {
            let features = Variant::BEST.features() | feature.into();
            let refused = device.set_driver_features(features);
            assert_eq!(refused, Err(OpError::FeaturesRefused));
        }
        let lacking = virtio::F::VERSION_1.into();
        assert_eq!(
            device.set_driver_features(lacking),
            Err(OpError::FeaturesRefused)
        );
        // A driver that goes on nevertheless is stopped here.
        let agreed = crate::world::agreed();
        assert_eq!(
            device.set_status(agreed).await,
            Err(OpError::FeaturesRefused)
        );
    });
}
