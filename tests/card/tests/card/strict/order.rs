//! The order of the initialisation, the status and the features (VIRTIO 1.2, 2.1, 2.2, 3.1.1, 6.1).

use ifcvf_card::Delay;

use crate::slot::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, VERSION_1};

use super::{Case, Slot, check, drive, half_settle, settle};

const FAILED: u8 = 128;

#[test]
fn whoever_breaks_the_order_is_caught() {
    let cases: &[Case<Slot>] = &[
        ("3.1.1", "before the device was reset", |slot| {
            slot.set_status(ACKNOWLEDGE);
        }),
        ("3.1.1", "sets 0x1 at once", |slot| {
            slot.reset();
            slot.set_status(ACKNOWLEDGE | DRIVER);
        }),
        ("3.1.1", "skips 0x1", |slot| {
            slot.reset();
            slot.set_status(DRIVER);
        }),
        ("3.1.1", "skips 0x8", |slot| {
            drive(slot);
            slot.set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
        }),
        ("3.1.1", "common 0x0 accessed before ACKNOWLEDGE", |slot| {
            slot.reset();
            slot.write32(0, 0, 1);
        }),
        ("3.1.1", "common 0x4 accessed before ACKNOWLEDGE", |slot| {
            slot.reset();
            slot.set_status(ACKNOWLEDGE);
            slot.read32(0, 4);
        }),
        ("3.1.1", "common 0x8 accessed before ACKNOWLEDGE", |slot| {
            slot.reset();
            slot.write32(0, 8, 0);
        }),
        ("3.1.1", "common 0x12 accessed before FEATURES_OK", |slot| {
            drive(slot);
            slot.read16(0, 0x12);
        }),
        ("3.1.1", "common 0x16 accessed before FEATURES_OK", |slot| {
            drive(slot);
            slot.write16(0, 0x16, 0);
        }),
        ("3.1.1", "common 0x10 accessed before FEATURES_OK", |slot| {
            drive(slot);
            slot.write16(0, 0x10, 0);
        }),
        (
            "3.1.1",
            "common 0x16 accessed before FEATURES_OK was read again",
            |slot| {
                half_settle(slot);
                slot.write16(0, 0x16, 0);
            },
        ),
        (
            "3.1.1",
            "DRIVER_OK before FEATURES_OK was read again",
            |slot| {
                half_settle(slot);
                slot.run();
            },
        ),
        (
            "3.1.1",
            "features written outside the negotiation",
            |slot| {
                settle(slot);
                slot.write32(0, 0xc, 0);
            },
        ),
        ("3.1.1", "configuration 0x0 read before DRIVER", |slot| {
            slot.reset();
            slot.read8(0, 0x15);
            slot.read8(0, 0x80);
        }),
        (
            "3.1.1",
            "configuration 0x6 written before FEATURES_OK",
            |slot| {
                drive(slot);
                slot.write16(0, 0x86, 0);
            },
        ),
        ("3.1.1", "queue 0 notified before DRIVER_OK", |slot| {
            settle(slot);
            slot.write16(0, 0x1000, 0);
        }),
        ("3.1.1", "queue 1 notified before DRIVER_OK", |slot| {
            settle(slot);
            slot.card.doorbell(0, 0x1004, 1).unwrap().ring(0);
            slot.read8(0, 0x15);
        }),
        ("2.1.1", "taken away", |slot| {
            drive(slot);
            slot.set_status(ACKNOWLEDGE);
        }),
        ("2.1.1", "after FAILED", |slot| {
            drive(slot);
            slot.set_status(ACKNOWLEDGE | DRIVER | FAILED);
            slot.set_status(ACKNOWLEDGE | DRIVER | FAILED | FEATURES_OK);
        }),
        ("2.2.1", "are not offered", |slot| {
            slot.negotiate(VERSION_1 | 1 << 50);
        }),
        ("2.2.1", "feature 22 without", |slot| {
            slot.negotiate(VERSION_1 | 1 << 22);
        }),
        ("6.1", "VERSION_1", |slot| {
            slot.negotiate(0);
        }),
        ("4.1.4.3.2", "during a reset", |slot| {
            slot.card
                .set_faults(|faults| faults.reset = Delay::After(3));
            slot.set_status(0);
            slot.set_status(ACKNOWLEDGE);
        }),
        ("4.1.4.3.2", "read as 0", |slot| {
            slot.set_status(0);
            slot.set_status(ACKNOWLEDGE);
        }),
        ("4.1.4.3.2", "common 0x16 accessed during a reset", |slot| {
            slot.set_status(0);
            slot.write16(0, 0x16, 0);
        }),
    ];
    check(cases);
}
