//! Setting queues up, their vectors and their notifications (VIRTIO 1.2, 2.6.1, 2.7.1, 2.8.11,
//! 4.1.4.3.2 and 4.1.5).

use ifcvf_card::Plan;

use crate::slot::VERSION_1;

use super::{Case, NOTIFICATION_DATA, PACKED, RING_RESET, Slot, assert_caught, check, net, settle};

/// A queue is set up but for its vector, and can be enabled.
fn place(slot: &Slot) {
    settle(slot);
    slot.write16(0, 0x16, 0);
    for at in (0x20..0x38).step_by(8) {
        slot.write32(0, at, 0x1000);
        slot.write32(0, at + 4, 0);
    }
}

#[test]
fn whoever_sets_a_queue_up_wrongly_is_caught() {
    let cases: &[Case<Slot>] = &[
        ("4.1.4.3.2", "100 entries", |slot| {
            settle(slot);
            slot.write16(0, 0x18, 100);
        }),
        ("4.1.4.3.2", "0 entries", |slot| {
            assert!(slot.negotiate(VERSION_1 | PACKED));
            slot.write16(0, 0x18, 0);
        }),
        ("4.1.4.3.2", "queue_size", |slot| {
            slot.start(0);
            slot.write16(0, 0x18, 8);
        }),
        ("4.1.4.3.2", "queue_msix_vector", |slot| {
            slot.start(0);
            slot.write16(0, 0x1a, 0);
        }),
        ("4.1.4.3.2", "queue_desc", |slot| {
            slot.start(0);
            slot.write32(0, 0x20, 0);
        }),
        ("4.1.4.3.2", "queue_driver", |slot| {
            slot.start(0);
            slot.write32(0, 0x2c, 0);
        }),
        ("4.1.4.3.2", "queue_device", |slot| {
            slot.start(0);
            slot.write32(0, 0x30, 0);
        }),
        ("4.1.4.3.2", "before its addresses", |slot| {
            settle(slot);
            slot.enable(0);
        }),
        ("4.1.4.3.2", "enabled twice", |slot| {
            slot.start(0);
            slot.enable(1);
        }),
        ("4.1.4.3.2", "0 written to queue_enable", |slot| {
            slot.start(0);
            slot.write16(0, 0x1c, 0);
        }),
        ("4.1.4.3.2", "before queue_reset was read as 0", |slot| {
            let lines = slot.start(RING_RESET);
            slot.write16(0, 0x16, 0);
            slot.card
                .set_faults(|faults| faults.queue_reset = ifcvf_card::Delay::AtOnce);
            slot.write16(0, 0x3a, 1);
            slot.place(0, &lines[0]);
            slot.enable(0);
        }),
        ("4.1.4.3.2", "0 written to queue_reset", |slot| {
            slot.start(RING_RESET);
            slot.write16(0, 0x3a, 0);
        }),
        ("2.6.1", "without RING_RESET", |slot| {
            slot.start(0);
            slot.write16(0, 0x3a, 1);
        }),
        ("4.1.5.1.3", "not there", |slot| {
            settle(slot);
            slot.write16(0, 0x16, 5);
            slot.write16(0, 0x18, 8);
        }),
        ("4.1.5.1.2.2", "vector 6 of a table of 6", |slot| {
            settle(slot);
            slot.write16(0, 0x1a, 6);
        }),
        (
            "4.1.5.1.2.2",
            "queue_msix_vector of queue 0 was not read",
            |slot| {
                place(slot);
                slot.write16(0, 0x1a, 1);
                slot.write16(0, 0x1c, 1);
            },
        ),
        ("4.1.5.1.2.2", "config_msix_vector was not read", |slot| {
            settle(slot);
            slot.write16(0, 0x10, 1);
            slot.run();
        }),
        ("4.1.5.2.1", "at notification 0x0", |slot| {
            slot.start(0);
            slot.write16(0, 0x1000, 1);
        }),
        ("4.1.5.2.1", "4 bytes", |slot| {
            slot.start(0);
            slot.write32(0, 0x1000, 0);
        }),
        ("4.1.5.2", "not enabled", |slot| {
            settle(slot);
            slot.run();
            slot.write16(0, 0x1000, 0);
        }),
    ];
    check(cases);
}

#[test]
fn the_parts_of_a_queue_are_aligned() {
    let cases = [
        (0, "2.7.1", 0x20, 8),
        (0, "2.7.1", 0x28, 1),
        (0, "2.7.1", 0x30, 2),
        (PACKED, "2.8.11", 0x20, 8),
        (PACKED, "2.8.11", 0x28, 2),
        (PACKED, "2.8.11", 0x30, 2),
    ];
    for (features, section, register, off) in cases {
        let slot = Slot::new(net());
        assert!(slot.negotiate(VERSION_1 | features));
        let line = slot.line(features);
        slot.place(0, &line);
        slot.write32(0, register, 0x1000 + off);
        slot.write32(0, register + 4, 0);
        slot.enable(0);
        assert_caught(&slot, section, "a part at");
        slot.reset();
    }
}

#[test]
fn a_notification_with_data_says_where_the_driver_stands() {
    for (features, right) in [(0, 1), (PACKED, 1 | 1 << 15)] {
        let plan = || Plan {
            features: net().features | NOTIFICATION_DATA,
            ..net()
        };
        let slot = Slot::new(plan());
        let mut lines = slot.start(features | NOTIFICATION_DATA);
        lines[0].offer(&[], 100);
        slot.write32(0, 0x1000, right << 16);
        slot.assert_lawful();
        slot.write32(0, 0x1000, (right + 1) << 16);
        assert_caught(&slot, "2.8.16", "stands at");
        slot.reset();
        let slot = Slot::new(plan());
        slot.start(features | NOTIFICATION_DATA);
        slot.write16(0, 0x1000, 0);
        assert_caught(&slot, "4.1.5.2.1", "2 bytes");
        slot.reset();
    }
}
