//! Widths, read-only registers and the device-specific configuration (VIRTIO 1.2, 2.5.1, 4.1.3.1,
//! 4.1.4.1 and 4.1.4.3.2).

use ifcvf_card::{Plan, Product};

use super::{Case, Slot, assert_caught, check, drive, net, settle};

#[test]
fn whoever_accesses_registers_wrongly_is_caught() {
    let cases: &[Case<Slot>] = &[
        ("4.1.3.1", "4 bytes at common 0x10", |slot| {
            slot.read32(0, 0x10);
        }),
        ("4.1.3.1", "2 bytes at common 0x14", |slot| {
            slot.write16(0, 0x14, 0);
        }),
        ("4.1.3.1", "2 bytes at common 0x20", |slot| {
            slot.write16(0, 0x20, 0);
        }),
        ("4.1.3.1", "1 bytes of configuration 0x6", |slot| {
            drive(slot);
            slot.read8(0, 0x86);
        }),
        ("4.1.3.1", "2 bytes of configuration 0x0", |slot| {
            drive(slot);
            slot.read8(0, 0x15);
            slot.read16(0, 0x80);
        }),
        ("4.1.4.3.2", "write at common 0x4", |slot| {
            drive(slot);
            slot.write32(0, 4, 0);
        }),
        ("4.1.4.3.2", "write at common 0x12", |slot| {
            settle(slot);
            slot.write16(0, 0x12, 0);
        }),
        ("4.1.4.3.2", "write at common 0x15", |slot| {
            settle(slot);
            slot.write8(0, 0x15, 0);
        }),
        ("4.1.4.3.2", "write at common 0x1e", |slot| {
            settle(slot);
            slot.write16(0, 0x1e, 0);
        }),
        ("2.5.1", "read before the generation", |slot| {
            drive(slot);
            slot.read8(0, 0x80);
        }),
        ("2.5.1", "not read after the configuration", |slot| {
            drive(slot);
            slot.read8(0, 0x15);
            for at in 0..6 {
                slot.read8(0, 0x80 + at);
            }
            slot.status();
        }),
        ("4.1.4.1", "in a virtio capability", |slot| {
            // The first capability is MSI-X, of 12 bytes.
            let at = (slot.config16(0x34) & 0xff) + 12;
            slot.card.write_config(at + 8, &[0; 4]);
        }),
    ];
    check(cases);
}

#[test]
fn a_field_without_its_feature_is_not_there() {
    for (at, feature) in [(0_u64, 5), (6, 16), (8, 22), (10, 3)] {
        let slot = Slot::new(Plan {
            features: net().features & !(1 << feature),
            ..net()
        });
        drive(&slot);
        slot.read8(0, 0x15);
        if at == 0 {
            slot.read8(0, 0x80);
        } else {
            slot.read16(0, 0x80 + at);
        }
        assert_caught(&slot, "2.5.1", "without its feature");
    }
    let slot = Slot::of(Product::VirtioBlk);
    drive(&slot);
    slot.read32(0, 0x88);
    assert_caught(&slot, "2.5.1", "configuration 0x8 without its feature");
}
