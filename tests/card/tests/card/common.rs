//! The common configuration and the device-specific one (VIRTIO 1.2, 4.1.4.3 and 4.1.4.6).

use ifcvf_card::{Delay, Doorbells, Generation, Plan, Product};

use crate::slot::{ACCESS_PLATFORM, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, Slot, VERSION_1};

#[test]
fn features_are_shown_by_words() {
    let slot = Slot::of(Product::N3000Net);
    let offered = slot.features();
    assert_eq!(offered, Plan::new(Product::N3000Net).features);
    assert_eq!(
        offered & (VERSION_1 | ACCESS_PLATFORM),
        VERSION_1 | ACCESS_PLATFORM
    );
    for select in [2, 3, 4, 1 << 27, u32::MAX] {
        slot.write32(0, 0, select);
        assert_eq!(slot.read32(0, 4), 0, "{select:#x}");
    }
    // What the driver has accepted is selected by its own selector.
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM | 1 << 28));
    slot.write32(0, 0, 1);
    slot.write32(0, 8, 0);
    assert_eq!(slot.read32(0, 0xc), 1 << 28);
    slot.write32(0, 8, 1);
    assert_eq!(slot.read32(0, 0xc), 3);
    slot.assert_lawful();
}

#[test]
fn features_without_access_platform_are_not_ok() {
    for product in Product::ALL {
        let slot = Slot::of(product);
        assert!(!slot.negotiate(VERSION_1));
        assert!(!slot.negotiate(ACCESS_PLATFORM));
        assert!(!slot.negotiate(0));
        assert!(!slot.negotiate(VERSION_1 | ACCESS_PLATFORM | 1 << 40));
        slot.run();
        assert_eq!(slot.status() & (DRIVER_OK | FEATURES_OK), 0);
        assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
        assert!(slot.negotiate(slot.features()));
    }
}

#[test]
fn the_upper_half_of_the_features_is_negotiated_like_the_lower() {
    let lower = VERSION_1 | ACCESS_PLATFORM;
    for extra in [1 << 64, 1 << 95, 1 << 127, 1 << 70 | 1 << 100] {
        let slot = Slot::new(Plan {
            features: lower | extra,
            ..Plan::new(Product::C5000xBlk)
        });
        assert_eq!(slot.features(), lower | extra);
        assert!(slot.negotiate(lower | extra));
        assert_eq!(slot.card.driver_features(), lower | extra);
        slot.assert_lawful();
        assert!(!slot.negotiate(lower | extra | 1 << 65));
        slot.assert_blamed("not offered");
    }
}

#[test]
fn a_word_that_has_features_is_written() {
    let lower = VERSION_1 | ACCESS_PLATFORM;
    let slot = Slot::new(Plan {
        features: lower | 1 << 64,
        ..Plan::new(Product::C5000xBlk)
    });
    slot.negotiate(lower);
    slot.assert_blamed("all words");
}

#[test]
fn multiqueue_needs_the_control_queue() {
    let slot = Slot::of(Product::C5000xNet);
    let mq = 1 << 22 | VERSION_1 | ACCESS_PLATFORM;
    assert!(!slot.negotiate(mq));
    assert!(slot.negotiate(mq | 1 << 17));
}

#[test]
fn the_status_is_a_machine() {
    let slot = Slot::of(Product::N3000Net);
    slot.reset();
    for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
        slot.set_status(status);
        assert_eq!(slot.status(), status);
    }
    slot.assert_lawful();
    slot.set_status(ACKNOWLEDGE);
    slot.assert_blamed("taken away");
    slot.reset();
    slot.set_status(DRIVER_OK);
    slot.assert_blamed("skips");
}

#[test]
fn features_are_frozen_once_they_are_ok() {
    let slot = Slot::of(Product::N3000Net);
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
    slot.write32(0, 8, 0);
    slot.write32(0, 0xc, 1 << 28);
    slot.assert_blamed("outside the negotiation");
    assert_eq!(slot.card.driver_features(), VERSION_1 | ACCESS_PLATFORM);
}

#[test]
fn half_of_the_features_is_noticed() {
    let slot = Slot::of(Product::N3000Net);
    slot.set_status(ACKNOWLEDGE);
    slot.set_status(ACKNOWLEDGE | DRIVER);
    slot.write32(0, 8, 1);
    slot.write32(0, 0xc, 3);
    slot.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    slot.assert_blamed("all words");
}

#[test]
fn registers_are_accessed_in_their_own_width() {
    let slot = Slot::of(Product::N3000Net);
    slot.read32(0, 0x10);
    slot.assert_blamed("4 bytes at common 0x10");
    slot.read32(0, 0x12);
    slot.assert_blamed("4 bytes read at 0x12");
    slot.read16(0, 0x14);
    slot.assert_blamed("2 bytes at common 0x14");
    slot.write16(0, 0x20, 0);
    slot.assert_blamed("2 bytes at common 0x20");
    let mut bytes = [0; 8];
    slot.card.read_bar(0, 0x20, &mut bytes);
    slot.assert_blamed("8 bytes");
    assert_eq!(bytes, [0xff; 8]);
    slot.write32(0, 0x24, 1);
    slot.assert_blamed("upper half first");
    slot.write32(0, 0x04, 1);
    slot.assert_blamed("write at common 0x4");
}

#[test]
fn queues_have_their_registers_for_themselves() {
    let slot = Slot::of(Product::N3000Net);
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
    assert_eq!(slot.read16(0, 0x12), 5);
    for queue in 0..5 {
        slot.write16(0, 0x16, queue);
        assert_eq!(slot.read16(0, 0x18), 256);
        assert_eq!(slot.read16(0, 0x1a), 0xffff);
        assert_eq!(slot.read16(0, 0x1c), 0);
        assert_eq!(slot.read16(0, 0x1e), queue);
        slot.write16(0, 0x18, 16 << queue);
        slot.write32(0, 0x30, queue.into());
    }
    for queue in 0..5 {
        slot.write16(0, 0x16, queue);
        assert_eq!(slot.read16(0, 0x18), 16 << queue);
        assert_eq!(slot.read32(0, 0x30), u32::from(queue));
    }
    slot.write16(0, 0x16, 5);
    assert_eq!(slot.read16(0, 0x18), 0, "there is no such queue");
    slot.assert_lawful();
    slot.write16(0, 0x18, 16);
    slot.assert_blamed("not there");
    slot.write16(0, 0x16, 0);
    slot.write16(0, 0x18, 100);
    slot.assert_blamed("100 entries");
    slot.set_status(0);
    assert_eq!(slot.read16(0, 0x18), 256);
}

#[test]
fn a_queue_that_runs_keeps_its_registers() {
    let slot = Slot::of(Product::ModernBlk);
    slot.start(0);
    slot.assert_lawful();
    slot.write16(0, 0x16, 0);
    slot.write16(0, 0x18, 16);
    slot.assert_blamed("while it runs");
    slot.write32(0, 0x20, 0);
    slot.assert_blamed("while it runs");
    slot.write16(0, 0x1c, 1);
    slot.assert_blamed("enabled twice");
    slot.write16(0, 0x1c, 2);
    slot.assert_blamed("2 written to queue_enable");
    assert_eq!(slot.read16(0, 0x18), 8);
}

#[test]
fn a_queue_cannot_be_enabled_too_early_or_nowhere() {
    let slot = Slot::of(Product::C5000xNet);
    slot.enable(0);
    slot.assert_blamed("too early");
    assert_eq!(slot.read16(0, 0x1c), 0);
    assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
    slot.enable(0);
    slot.assert_blamed("queue 0");
    assert_ne!(slot.status() & 64, 0, "the device needs a reset");
}

#[test]
fn a_queue_stops_when_its_register_says_so() {
    let slot = Slot::of(Product::N3000Net);
    slot.start(0);
    assert_eq!(slot.stop(0), 2);
    assert_eq!(slot.stop(0), 0, "it has stopped");
    slot.card.set_faults(|faults| faults.stop = Delay::After(7));
    assert_eq!(slot.stop(1), 7);
    slot.card.set_faults(|faults| faults.stop = Delay::AtOnce);
    assert_eq!(slot.stop(2), 0);
    slot.card.set_faults(|faults| faults.stop = Delay::Never);
    slot.write16(0, 0x16, 3);
    slot.write16(0, 0x1c, 0);
    assert!((0..1000).all(|_| slot.read16(0, 0x1c) == 1));
    // Until it does after all, and then it can be enabled again.
    slot.card.set_faults(|faults| faults.stop = Delay::AtOnce);
    assert_eq!(slot.read16(0, 0x1c), 0);
    slot.enable(3);
    assert_eq!(slot.read16(0, 0x1c), 1);
    assert_eq!(slot.stop(3), 0);
    slot.assert_lawful();
}

#[test]
fn a_reset_takes_as_long_as_it_is_told_to() {
    let slot = Slot::of(Product::N3000Net);
    slot.set_status(ACKNOWLEDGE);
    slot.card
        .set_faults(|faults| faults.reset = Delay::After(3));
    slot.set_status(0);
    let looks = [(); 5].map(|()| slot.status());
    assert_eq!(looks, [1, 1, 1, 0, 0]);
    assert_eq!(slot.card.counters().resets, 1);
    slot.set_status(0);
    slot.set_status(ACKNOWLEDGE);
    slot.assert_blamed("during a reset");
    slot.card.set_faults(|faults| faults.reset = Delay::Never);
    slot.set_status(0);
    assert!((0..1000).all(|_| slot.status() != 0));
}

#[test]
fn doorbells_are_where_the_multiplier_says() {
    for (doorbells, multiplier) in [(Doorbells::Close, 4), (Doorbells::PagePerQueue, 4096)] {
        let slot = Slot::new(Plan {
            doorbells,
            ..Plan::new(Product::N3000Net)
        });
        slot.start(0);
        for queue in 0..5_u16 {
            let at = 0x1000 + multiplier * u64::from(queue);
            slot.write16(0, at, queue);
            assert_eq!(slot.card.kicks(queue), 1);
            slot.card.doorbell(0, at, queue).unwrap().ring(0);
            assert_eq!(slot.card.kicks(queue), 2);
            assert!(slot.card.doorbell(0, at + 2, queue).is_none());
            assert!(slot.card.doorbell(2, at, queue).is_none());
        }
        slot.assert_lawful();
        slot.write16(0, 0x1000, 1);
        slot.assert_blamed("at notification");
        slot.write32(0, 0x1000, 0);
        slot.assert_blamed("at notification");
    }
}

#[test]
fn the_configuration_of_a_network_card() {
    let slot = Slot::new(Plan {
        queues: 4,
        mtu: 9000,
        ..Plan::new(Product::N3000Net)
    });
    slot.features();
    slot.read8(0, 0x15);
    let mac = [0, 1, 2, 3, 4, 5].map(|at| slot.read8(0, 0x80 + at));
    assert_eq!(mac, Plan::new(Product::N3000Net).mac);
    assert_eq!(slot.read16(0, 0x86), 1, "the link is up");
    assert_eq!(slot.read16(0, 0x88), 4);
    assert_eq!(slot.read16(0, 0x8a), 9000);
    slot.assert_lawful();
    slot.read8(0, 0x8c);
    slot.assert_blamed("where nothing is");
    slot.write8(0, 0x80, 0);
    slot.assert_blamed("written before FEATURES_OK");
}

#[test]
fn the_configuration_of_a_block_card() {
    let slot = Slot::of(Product::C5000xBlk);
    slot.features();
    slot.read8(0, 0x15);
    assert_eq!([0x80, 0x84].map(|at| slot.read32(0, at)), [64, 0]);
    assert_eq!(slot.read32(0, 0x80 + 12), 128);
    assert_eq!(slot.read32(0, 0x80 + 20), 512);
    assert_eq!(slot.read16(0, 0x80 + 34), 2);
    assert_eq!(slot.read32(0, 0x80 + 40), 16);
    assert_eq!(slot.read8(0, 0x80 + 56), 1);
    slot.assert_lawful();
}

#[test]
fn a_change_has_a_new_generation() {
    let slot = Slot::of(Product::N3000Net);
    let before = slot.read8(0, 0x15);
    assert_eq!(slot.read16(0, 0x86), 1);
    assert_eq!(slot.read8(0, 0x15), before);
    slot.card.change_config(|config| config[6] = 0);
    assert_eq!(slot.read16(0, 0x86), 0);
    assert_ne!(slot.read8(0, 0x15), before);
    slot.card
        .set_faults(|faults| faults.generation = Generation::Changes(2));
    let after = slot.read8(0, 0x15);
    let generations = [(); 3].map(|()| {
        slot.read16(0, 0x86);
        slot.read8(0, 0x15).wrapping_sub(after)
    });
    assert_eq!(generations, [1, 2, 2]);
}
