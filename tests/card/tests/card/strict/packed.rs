//! Packed queues (VIRTIO 1.2, 2.8).

use super::raw::{INDIRECT, NEXT, Raw, WRITE, check};
use super::{Case, EVENT_IDX, PACKED};

/// Made available in the first round.
const AVAIL: u16 = 1 << 7;

#[test]
fn whoever_breaks_a_packed_ring_is_caught() {
    let cases: &[Case<Raw>] = &[
        ("2.8.10", "flags 0x2", |raw| {
            raw.run();
            raw.put(raw.page(1) + 2, &[2, 0]);
        }),
        ("2.8.13", "flags 0x88", |raw| {
            raw.run();
            raw.descriptor(0, 16, 0, AVAIL | 8);
        }),
        ("2.8.17", "device-readable descriptor after", |raw| {
            raw.run();
            raw.descriptor(0, 16, 0, AVAIL | WRITE | NEXT);
            raw.descriptor(1, 16, 0, AVAIL);
        }),
        ("2.8.17", "before the others", |raw| {
            raw.run();
            raw.descriptor(0, 16, 0, AVAIL | NEXT);
        }),
        ("2.8.17", "4294967297 bytes", |raw| {
            raw.run();
            raw.descriptor(0, u32::MAX, 0, AVAIL | NEXT);
            raw.descriptor(1, 2, 0, AVAIL | WRITE);
        }),
        ("2.8.19", "not negotiated", |raw| {
            raw.run();
            raw.table(0, 16, 0, AVAIL | INDIRECT);
        }),
        ("2.8.16", "changed while available", |raw| {
            raw.run();
            raw.descriptor(0, 16, 5, AVAIL | NEXT);
            raw.descriptor(1, 513, 5, AVAIL | WRITE);
            raw.kick();
            raw.descriptor(1, 514, 5, AVAIL | WRITE);
        }),
        ("3.3.1", "buffer 5 made available again", |raw| {
            raw.run();
            raw.descriptor(0, 16, 5, AVAIL | WRITE);
            raw.descriptor(1, 16, 5, AVAIL | WRITE);
        }),
    ];
    check(PACKED, cases);
}

#[test]
fn whoever_breaks_an_indirect_table_is_caught() {
    let cases: &[Case<Raw>] = &[
        ("2.8.19", "in a list of NEXT", |raw| {
            raw.run();
            raw.table(0, 16, 0, AVAIL | INDIRECT | NEXT);
        }),
        ("2.8.19", "in a list of NEXT", |raw| {
            raw.run();
            raw.descriptor(0, 16, 0, AVAIL | NEXT);
            raw.table(1, 16, 0, AVAIL | INDIRECT);
        }),
        ("2.8.19", "flags 0x1 within", |raw| {
            raw.run();
            raw.in_table(0, 0, NEXT);
            raw.table(0, 16, 0, AVAIL | INDIRECT);
        }),
        ("2.8.19", "9 descriptors", |raw| {
            raw.run();
            raw.table(0, 9 * 16, 0, AVAIL | INDIRECT);
        }),
        ("2.8.7", "of 8 bytes", |raw| {
            raw.run();
            raw.table(0, 8, 0, AVAIL | INDIRECT);
        }),
    ];
    check(PACKED | super::INDIRECT, cases);
}

#[test]
fn event_suppression_has_three_values() {
    let cases: &[Case<Raw>] = &[("2.8.10", "flags 0x3", |raw| {
        raw.run();
        raw.put(raw.page(1) + 2, &[3, 0]);
    })];
    check(PACKED | EVENT_IDX, cases);
}
