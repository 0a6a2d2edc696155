//! Split queues (VIRTIO 1.2, 2.7 and 3.3.1).

use super::raw::{INDIRECT, NEXT, Raw, SIZE, WRITE, check};
use super::{Case, EVENT_IDX, IN_ORDER};

/// A request to read a sector: the header, the data and the status.
fn request(raw: &Raw) {
    raw.descriptor(0, 16, NEXT, 1);
    raw.descriptor(1, 513, WRITE, 0);
}

#[test]
fn whoever_breaks_a_split_ring_is_caught() {
    let cases: &[Case<Raw>] = &[
        ("2.7.4.2", "device-readable descriptor after", |raw| {
            raw.run();
            raw.descriptor(0, 16, NEXT | WRITE, 1);
            raw.descriptor(1, 16, 0, 0);
            raw.offer(0);
        }),
        ("2.7.5", "flags 0x8", |raw| {
            raw.run();
            raw.descriptor(0, 16, 8, 0);
            raw.offer(0);
        }),
        ("2.7.5", "descriptor 8 of 8", |raw| {
            raw.run();
            raw.descriptor(0, 16, NEXT, SIZE);
            raw.offer(0);
        }),
        ("2.7.5", "descriptor 9 of 8", |raw| {
            raw.run();
            raw.offer(9);
        }),
        ("2.7.5.2", "a chain of 4294967297 bytes", |raw| {
            raw.run();
            raw.descriptor(0, u32::MAX, NEXT, 1);
            raw.descriptor(1, 2, WRITE, 0);
            raw.offer(0);
        }),
        ("2.7.5.3.1", "longer than the queue", |raw| {
            raw.run();
            raw.descriptor(0, 16, NEXT, 1);
            raw.descriptor(1, 16, NEXT, 0);
            raw.offer(0);
        }),
        ("2.7.5.3.1", "not negotiated", |raw| {
            raw.run();
            raw.table(0, 16, INDIRECT, 0);
            raw.offer(0);
        }),
        ("2.7.6.1", "after 1", |raw| {
            raw.run();
            request(raw);
            raw.offer(0);
            raw.kick();
            raw.put(raw.page(1) + 2, &[0, 0]);
        }),
        ("2.7.6.1", "index 9", |raw| {
            raw.run();
            raw.put(raw.page(1) + 2, &[9, 0]);
        }),
        ("2.7.7.1", "0x2", |raw| {
            raw.run();
            raw.put(raw.page(1), &[2, 0]);
        }),
        ("2.7.10.1", "used ring", |raw| {
            raw.put(raw.page(2), &[1, 0]);
            raw.run();
        }),
        ("3.3.1", "changed while available", |raw| {
            raw.run();
            request(raw);
            raw.offer(0);
            raw.kick();
            raw.descriptor(1, 514, WRITE, 0);
        }),
        ("3.3.1", "made available again", |raw| {
            raw.run();
            request(raw);
            raw.offer(0);
            raw.offer(0);
        }),
    ];
    check(0, cases);
}

#[test]
fn whoever_breaks_an_indirect_table_is_caught() {
    let cases: &[Case<Raw>] = &[
        ("2.7.5.3.1", "INDIRECT and NEXT", |raw| {
            raw.run();
            raw.table(0, 16, INDIRECT | NEXT, 1);
            raw.offer(0);
        }),
        ("2.7.5.3.1", "within an indirect table", |raw| {
            raw.run();
            raw.table(0, 16, INDIRECT, 0);
            raw.in_table(0, INDIRECT, 0);
            raw.offer(0);
        }),
        ("2.7.5.3.1", "longer than the queue", |raw| {
            raw.run();
            raw.table(0, 32, INDIRECT, 0);
            raw.in_table(0, NEXT, 1);
            raw.in_table(1, NEXT, 0);
            raw.offer(0);
        }),
        ("2.7.5.3", "of 8 bytes", |raw| {
            raw.run();
            raw.table(0, 8, INDIRECT, 0);
            raw.offer(0);
        }),
        ("2.7.5.3", "descriptor 2 of 2", |raw| {
            raw.run();
            raw.table(0, 32, INDIRECT, 0);
            raw.in_table(0, NEXT, 2);
            raw.offer(0);
        }),
        ("2.7.4.2", "device-readable descriptor after", |raw| {
            raw.run();
            raw.table(0, 32, INDIRECT, 0);
            raw.in_table(0, NEXT | WRITE, 1);
            raw.in_table(1, 0, 0);
            raw.offer(0);
        }),
    ];
    check(super::INDIRECT, cases);
}

#[test]
fn with_in_order_descriptors_follow_each_other() {
    let cases: &[Case<Raw>] = &[
        ("2.7.5.2", "3 follows 0", |raw| {
            raw.run();
            raw.descriptor(0, 16, NEXT, 3);
            raw.descriptor(3, 16, WRITE, 0);
            raw.offer(0);
        }),
        ("2.7.5.3.1", "2 follows 0", |raw| {
            raw.run();
            raw.table(0, 48, INDIRECT, 0);
            raw.in_table(0, NEXT, 2);
            raw.in_table(2, WRITE, 0);
            raw.offer(0);
        }),
    ];
    check(IN_ORDER | super::INDIRECT, cases);
}

#[test]
fn with_event_idx_the_flags_are_zero() {
    let cases: &[Case<Raw>] = &[("2.7.7.1", "0x1", |raw| {
        raw.run();
        raw.put(raw.page(1), &[1, 0]);
    })];
    check(EVENT_IDX, cases);
}
