//! What a hostile driver can write into a ring of either format: each case breaks the queue with
//! its own name, over both kinds of memory, and the malformed chain can be given back.

use crate::common::*;
use virtq::DmaAddr;
use virtq::device::{Broken, DeviceConfig, DeviceQueue, Fault};

/// A chain, descriptor by descriptor with its flags, and how the queue breaks at its last one.
struct Case {
    what: &'static str,
    indirect: bool,
    chain_max: Option<u16>,
    chain: fn(&World) -> Vec<(Buffer, u16)>,
    expected: Broken,
}

const CASE: Case = Case {
    what: "",
    indirect: false,
    chain_max: None,
    chain: |_| Vec::new(),
    expected: Broken::TooLong,
};

fn byte(world: &World) -> Buffer {
    Buffer::with(world, b"x")
}

/// A table of so many bytes, whose entries name a byte each. What comes after address and length is
/// flags and next in a split ring, and id and flags in a packed one.
fn table(world: &World, entries: &[(u16, u16)], len: u32) -> Buffer {
    let table = world.allocate(16 * entries.len(), 16);
    for (place, (third, fourth)) in (0..).zip(entries) {
        let at = table.0 + 16 * place;
        world.write_descriptor(at, byte(world), *third, *fourth);
    }
    Buffer::readable(table, len)
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        Case {
            what: "readable after writable",
            chain: |world| vec![(byte(world), WRITE), (byte(world), 0)],
            expected: Broken::ReadableAfterWritable,
            ..CASE
        },
        Case {
            what: "readable after an empty writable",
            chain: |world| {
                let empty = Buffer::writable(DmaAddr(0), 0);
                vec![(empty, WRITE), (byte(world), 0)]
            },
            expected: Broken::ReadableAfterWritable,
            ..CASE
        },
        Case {
            what: "a segment over the end of the address space",
            chain: |_| vec![(Buffer::readable(DmaAddr(u64::MAX - 14), 16), 0)],
            expected: Broken::AddressWrap,
            ..CASE
        },
        Case {
            what: "two bytes at the last address",
            chain: |_| vec![(Buffer::readable(DmaAddr(u64::MAX), 2), 0)],
            expected: Broken::AddressWrap,
            ..CASE
        },
        Case {
            what: "more bytes than a chain may hold, to read",
            chain: |_| vec![(Buffer::readable(DmaAddr(0), u32::MAX), 0); 2],
            expected: Broken::TooManyBytes,
            ..CASE
        },
        Case {
            what: "more bytes than a chain may hold, to write",
            chain: |_| {
                let two = Buffer::writable(DmaAddr(0), 2);
                vec![
                    (Buffer::writable(DmaAddr(0), u32::MAX), WRITE),
                    (two, WRITE),
                ]
            },
            expected: Broken::TooManyBytes,
            ..CASE
        },
        Case {
            what: "more segments than the device takes",
            chain_max: Some(1),
            chain: |world| vec![(byte(world), 0); 2],
            expected: Broken::TooLong,
            ..CASE
        },
        Case {
            what: "a table that was not negotiated",
            chain: |world| vec![(table(world, &[(0, 0)], 16), INDIRECT)],
            expected: Broken::IndirectNotNegotiated,
            ..CASE
        },
        Case {
            what: "a table longer than the device takes",
            indirect: true,
            chain: |world| vec![(table(world, &[(0, 0); 9], 9 * 16), INDIRECT)],
            expected: Broken::IndirectTooLong,
            ..CASE
        },
        Case {
            what: "a table as long as a length can say",
            indirect: true,
            chain: |_| vec![(Buffer::readable(DmaAddr(0), u32::MAX - 15), INDIRECT)],
            expected: Broken::IndirectTooLong,
            ..CASE
        },
        Case {
            what: "a table over the end of the address space",
            indirect: true,
            chain: |_| vec![(Buffer::readable(DmaAddr(u64::MAX - 16), 32), INDIRECT)],
            expected: Broken::AddressWrap,
            ..CASE
        },
        Case {
            what: "a table that is not mapped",
            indirect: true,
            chain: |_| vec![(Buffer::readable(DmaAddr(16), 32), INDIRECT)],
            expected: Broken::IndirectFault(Fault::NoMapping),
            ..CASE
        },
        Case {
            what: "readable after writable in a table",
            indirect: true,
            chain: |world| {
                // Writable in either format, and followed by the third entry or by the second.
                let entries = [(WRITE | NEXT, WRITE), (0, 0), (0, 0)];
                vec![(table(world, &entries, 48), INDIRECT)]
            },
            expected: Broken::ReadableAfterWritable,
            ..CASE
        },
    ];
    all.extend(HALF_TABLES.map(|chain| Case {
        what: "a table of no or half an entry",
        indirect: true,
        chain,
        expected: Broken::IndirectLength,
        ..CASE
    }));
    all
}

type MakeChain = fn(&World) -> Vec<(Buffer, u16)>;

const HALF_TABLES: [MakeChain; 8] = [
    |world| half_table(world, 0),
    |world| half_table(world, 1),
    |world| half_table(world, 8),
    |world| half_table(world, 15),
    |world| half_table(world, 17),
    |world| half_table(world, 24),
    |world| half_table(world, 40),
    |world| half_table(world, u32::MAX),
];

fn half_table(world: &World, len: u32) -> Vec<(Buffer, u16)> {
    vec![(table(world, &[(0, 0); 4], len), INDIRECT)]
}

/// Makes the chain available, and returns its id.
fn offer(world: &World, driver: &mut Driver, chain: &[(Buffer, u16)]) -> u16 {
    let last = chain.len() - 1;
    let parts = (0..).zip(chain).map(|(place, (buffer, flags))| {
        let next = if usize::from(place) < last { NEXT } else { 0 };
        (place, *buffer, flags | next)
    });
    match driver {
        Driver::Split(driver) => {
            for (place, buffer, flags) in parts {
                driver.descriptor(world, 2 + place, buffer, flags, 3 + place);
            }
            driver.offer(world, 2);
            2
        }
        Driver::Packed(driver) => {
            for (_, buffer, flags) in parts {
                driver.put(world, buffer, 4, flags);
            }
            driver.publish(world);
            4
        }
    }
}

/// The chain of this id, and no other, was given back.
fn is_given_back(world: &World, driver: &Driver, id: u16) -> bool {
    match driver {
        Driver::Split(driver) => {
            let entry = world.read_u32(driver.addresses.device.0 + 4);
            (driver.used_index(world), entry) == (1, id.into())
        }
        Driver::Packed(driver) => driver.has_used(world),
    }
}

#[test]
fn each_malformed_chain_has_its_name_and_can_be_given_back() {
    for case in cases() {
        for (packed, size) in [(false, 8), (true, 6)] {
            for world in World::both() {
                let features = SPLIT.with_packed(packed).with_indirect(case.indirect);
                let mut driver = Driver::new(&world, size, features);
                let id = offer(&world, &mut driver, &(case.chain)(&world));
                let config = config(&driver);
                let config = DeviceConfig {
                    chain_max: case.chain_max.unwrap_or(config.chain_max),
                    ..config
                };
                let mut queue = DeviceQueue::new(&config, world.memory()).expect("checked");
                let what = format!("{}, packed: {packed}", case.what);
                println!("{what}");
                assert_eq!(breaks(&mut queue), case.expected, "{what}");
                let chain = queue.take_abandoned().expect(&what);
                assert_eq!(chain.id(), id, "{what}");
                assert!(chain.readable().is_empty() && chain.writable().is_empty());
                queue.complete(chain, 0).expect("the ring is there");
                assert!(queue.notify(), "{what}");
                assert!(is_given_back(&world, &driver, id), "{what}");
            }
        }
    }
}
