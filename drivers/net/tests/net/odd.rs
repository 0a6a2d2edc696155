//! Network cards that say odd things of themselves: what Linux works with works here, too.

use virtio::net::F;

use crate::fixture::{MAC, PLAIN, Setup};

fn frame() -> Vec<u8> {
    (0..60).collect()
}

#[test]
fn cards_that_say_odd_things_carry_frames() {
    let setup = Setup::default;
    let cards = [
        ("as usual", setup()),
        ("the shortest MTU", Setup { mtu: 68, ..setup() }),
        ("an MTU that is none", Setup { mtu: 67, ..setup() }),
        ("no MTU", Setup { mtu: 0, ..setup() }),
        (
            "less than IPv6 needs",
            Setup {
                mtu: 1279,
                ..setup()
            },
        ),
        (
            "the longest MTU",
            Setup {
                mtu: u16::MAX,
                ..setup()
            },
        ),
        (
            "a group as address",
            Setup {
                mac: [1, 0, 0x5e, 0, 0, 1],
                ..setup()
            },
        ),
        (
            "everybody as address",
            Setup {
                mac: [0xff; 6],
                ..setup()
            },
        ),
        (
            "nobody as address",
            Setup {
                mac: [0; 6],
                ..setup()
            },
        ),
        (
            "a queue of two",
            Setup {
                queue_size: 2,
                ..setup()
            },
        ),
        (
            "a queue that is no power of two",
            Setup {
                queue_size: 100,
                ..setup()
            },
        ),
        (
            "the longest queue",
            Setup {
                queue_size: 32_768,
                ..setup()
            },
        ),
        ("pairs without a control queue", Setup::with(F::MQ)),
        (
            "a control queue that is not there",
            Setup::with(F::CTRL_VQ | F::MQ | F::CTRL_RX),
        ),
        (
            "features that nobody knows",
            Setup::with(F::from_bits_retain((1_u128 << 50).into())),
        ),
        (
            "the platform's addresses and order",
            Setup::with(F::ACCESS_PLATFORM | F::ORDER_PLATFORM),
        ),
    ];
    for (name, setup) in cards {
        let mut net = setup.start();
        for _ in 0..3 {
            net.deliver(PLAIN, &frame());
            assert_eq!(net.receive(), Some(frame()), "{name}");
        }
        assert_eq!(net.interface.mac().0[0] & 1, 0, "{name}");
    }
}

#[test]
fn every_number_of_pairs_is_one_without_the_feature_that_sets_it() {
    for pairs in [0_u16, 1, 2, 0x8000, 0x8001, u16::MAX] {
        let setup = Setup {
            pairs,
            ..Setup::with(F::MQ | F::RSS)
        };
        let mut net = setup.start();
        net.deliver(PLAIN, &frame());
        assert_eq!(net.receive(), Some(frame()), "{pairs}");
        assert!(!net.world.parent.accepted().contains(F::MQ));
    }
}

#[test]
fn the_status_has_bits_that_nobody_knows() {
    let mut net = Setup::default().start();
    for (status, up) in [(0xffff_u16, true), (0xfffe, false), (0x8001, true)] {
        net.world.parent.change_config(6, &status.to_le_bytes());
        net.world.platform.run_until_stalled();
        assert_eq!(net.link_is_up(), up, "{status:#x}");
    }
    assert_eq!(net.interface.mac().0, MAC);
}

/// What needs a feature that is not offered is not accepted (VIRTIO 1.2, 2.2.1).
#[test]
fn features_without_what_they_need_are_left_alone() {
    let net = Setup::with(F::CTRL_RX | F::CTRL_MAC_ADDR).start();
    let accepted = net.world.parent.accepted();
    assert!(!accepted.contains(F::CTRL_RX) && !accepted.contains(F::CTRL_MAC_ADDR));
    assert!(accepted.contains(F::MAC));
}
