//! What a hostile driver can write into a split ring: each case breaks the queue with its own name,
//! over both kinds of memory, and the malformed chain can be given back where its head is known.

use crate::common::*;
use virtq::device::{Broken, DeviceConfig, DeviceQueue};
use virtq::{DmaAddr, RingFeatures};

const SIZE: u16 = 8;
const INDIRECT_SPLIT: RingFeatures = RingFeatures {
    indirect: true,
    ..SPLIT
};

struct Case {
    world: World,
    driver: SplitDriver,
    config: DeviceConfig,
}

impl Case {
    /// Descriptor `index` of the ring names a readable byte, unless the flags say otherwise.
    fn descriptor(&self, index: u16, flags: u16, next: u16) {
        let byte = Buffer::with(&self.world, b"x");
        self.driver
            .descriptor(&self.world, index, byte, flags, next);
    }

    /// Descriptor `index` of the ring names a table of `entries`: flags and next of each.
    fn table(&self, index: u16, flags: u16, entries: &[(u16, u16)]) {
        let table = self.world.allocate(16 * entries.len().max(1), 16);
        for (place, &(flags, next)) in (0..).zip(entries) {
            let byte = Buffer::with(&self.world, b"x");
            self.world
                .write_descriptor(table.0 + 16 * place, byte, flags, next);
        }
        let len = u32::try_from(16 * entries.len()).expect("a small table");
        let buffer = Buffer::readable(table, len);
        self.driver
            .descriptor(&self.world, index, buffer, INDIRECT | flags, 0);
    }
}

/// A device that must find `expected` in what `write` puts into the ring, and can give the chain of head 2
/// back.
fn breaks_at_head(features: RingFeatures, expected: Broken, write: impl Fn(&mut Case)) {
    for mut case in cases(features) {
        write(&mut case);
        case.driver.offer(&case.world, 2);
        let mut queue = DeviceQueue::new(&case.config, case.world.memory()).expect("checked");
        assert_eq!(breaks(&mut queue), expected);
        let chain = queue.take_abandoned().expect("the head is known");
        assert_eq!(chain.id(), 2);
        assert!(chain.readable().is_empty() && chain.writable().is_empty());
        queue.complete(chain, 0).expect("the ring is there");
        assert!(queue.notify());
        assert_eq!(case.driver.used_index(&case.world), 1);
        assert_eq!(case.world.read_u32(case.driver.addresses.device.0 + 4), 2);
    }
}

/// A device that must find `expected` without a chain that it could return.
fn breaks_without_head(expected: Broken, write: impl Fn(&mut Case)) {
    for mut case in cases(SPLIT) {
        let mut queue = DeviceQueue::new(&case.config, case.world.memory()).expect("checked");
        write(&mut case);
        while queue.broken().is_none() {
            match queue.pop() {
                // Kept by the device.
                Ok(Some(_chain)) => {}
                Ok(None) => panic!("the device sees nothing wrong"),
                Err(_) => {}
            }
        }
        assert_eq!(queue.broken(), Some(expected));
        assert!(queue.take_abandoned().is_none());
        assert_eq!(case.driver.used_index(&case.world), 0);
    }
}

fn cases(features: RingFeatures) -> [Case; 2] {
    World::both().map(|world| {
        let driver = Driver::new(&world, SIZE, features);
        let config = config(&driver);
        let Driver::Split(driver) = driver else {
            panic!("a split ring was asked for");
        };
        Case {
            world,
            driver,
            config,
        }
    })
}

#[test]
fn head_outside_the_ring() {
    breaks_without_head(Broken::BadHead, |case| case.driver.offer(&case.world, SIZE));
    breaks_without_head(Broken::BadHead, |case| {
        case.driver.offer(&case.world, u16::MAX);
    });
}

#[test]
fn available_index_jumps_beyond_the_ring() {
    breaks_without_head(Broken::AvailIndex, |case| {
        case.driver.set_index(&case.world, SIZE + 1);
    });
}

#[test]
fn available_index_goes_back() {
    breaks_without_head(Broken::AvailIndex, |case| {
        case.driver.set_index(&case.world, u16::MAX);
    });
}

#[test]
fn available_index_counts_chains_that_are_still_in_flight() {
    for mut case in cases(SPLIT) {
        let mut queue = DeviceQueue::new(&case.config, case.world.memory()).expect("checked");
        for head in 0..SIZE {
            case.descriptor(head, 0, 0);
            case.driver.offer(&case.world, head);
        }
        for _ in 0..SIZE {
            let _kept = pop(&mut queue);
        }
        case.driver.offer(&case.world, 0);
        assert_eq!(breaks(&mut queue), Broken::AvailIndex);
    }
}

#[test]
fn chain_offered_while_in_flight() {
    breaks_without_head(Broken::Duplicate, |case| {
        case.descriptor(2, 0, 0);
        case.driver.offer(&case.world, 2);
        case.driver.offer(&case.world, 2);
    });
}

#[test]
fn next_outside_the_ring() {
    breaks_at_head(SPLIT, Broken::BadNext, |case| {
        case.descriptor(2, NEXT, SIZE);
    });
}

#[test]
fn loop_of_one_descriptor() {
    breaks_at_head(SPLIT, Broken::Loop, |case| case.descriptor(2, NEXT, 2));
}

#[test]
fn loop_of_several_descriptors() {
    breaks_at_head(SPLIT, Broken::Loop, |case| {
        case.descriptor(2, NEXT, 5);
        case.descriptor(5, NEXT, 3);
        case.descriptor(3, NEXT, 5);
    });
}

#[test]
fn loop_of_empty_descriptors() {
    breaks_at_head(SPLIT, Broken::Loop, |case| {
        let empty = Buffer::readable(DmaAddr(0), 0);
        case.driver.descriptor(&case.world, 2, empty, NEXT, 2);
    });
}

#[test]
fn readable_after_writable() {
    breaks_at_head(SPLIT, Broken::ReadableAfterWritable, |case| {
        case.descriptor(2, WRITE | NEXT, 3);
        case.descriptor(3, 0, 0);
    });
}

#[test]
fn readable_after_an_empty_writable() {
    breaks_at_head(SPLIT, Broken::ReadableAfterWritable, |case| {
        let empty = Buffer::writable(DmaAddr(0), 0);
        case.driver
            .descriptor(&case.world, 2, empty, WRITE | NEXT, 3);
        case.descriptor(3, 0, 0);
    });
}

#[test]
fn segment_over_the_end_of_the_address_space() {
    breaks_at_head(SPLIT, Broken::AddressWrap, |case| {
        let wrapping = Buffer::readable(DmaAddr(u64::MAX - 14), 16);
        case.driver.descriptor(&case.world, 2, wrapping, 0, 0);
    });
}

#[test]
fn segment_up_to_the_end_of_the_address_space_is_allowed() {
    for mut case in cases(SPLIT) {
        let last = Buffer::readable(DmaAddr(u64::MAX - 15), 16);
        case.driver.descriptor(&case.world, 2, last, 0, 0);
        case.driver.offer(&case.world, 2);
        let mut queue = DeviceQueue::new(&case.config, case.world.memory()).expect("checked");
        let chain = pop(&mut queue);
        assert_eq!(chain.readable_len(), 16);
        // It is a fault of the payload, not of the ring, that nothing is mapped there.
        assert!(queue.pull(&chain, 0, &mut [0; 16]).is_err());
        assert_eq!(queue.broken(), None);
    }
}

#[test]
fn more_bytes_than_a_chain_may_hold() {
    breaks_at_head(SPLIT, Broken::TooManyBytes, |case| {
        let huge = Buffer::readable(DmaAddr(0), u32::MAX);
        case.driver.descriptor(&case.world, 2, huge, NEXT, 3);
        case.driver.descriptor(&case.world, 3, huge, 0, 0);
    });
}

#[test]
fn more_segments_than_the_device_takes() {
    breaks_at_head(SPLIT, Broken::TooLong, |case| {
        case.config.chain_max = 1;
        case.descriptor(2, NEXT, 3);
        case.descriptor(3, 0, 0);
    });
}

#[test]
fn indirect_table_that_was_not_negotiated() {
    breaks_at_head(SPLIT, Broken::IndirectNotNegotiated, |case| {
        case.table(2, 0, &[(0, 0)]);
    });
}

#[test]
fn indirect_table_without_entries() {
    breaks_at_head(INDIRECT_SPLIT, Broken::IndirectLength, |case| {
        case.table(2, 0, &[]);
    });
}

#[test]
fn indirect_table_of_half_an_entry() {
    for len in [1, 8, 15, 17, 40, u32::MAX] {
        breaks_at_head(INDIRECT_SPLIT, Broken::IndirectLength, |case| {
            let table = Buffer::readable(case.world.allocate(64, 16), len);
            case.driver.descriptor(&case.world, 2, table, INDIRECT, 0);
        });
    }
}

#[test]
fn indirect_table_in_an_indirect_table() {
    breaks_at_head(INDIRECT_SPLIT, Broken::IndirectNested, |case| {
        case.table(2, 0, &[(NEXT, 1), (INDIRECT, 0)]);
    });
}

#[test]
fn indirect_table_with_a_successor() {
    breaks_at_head(INDIRECT_SPLIT, Broken::IndirectChained, |case| {
        case.table(2, NEXT, &[(0, 0)]);
    });
}

#[test]
fn indirect_table_longer_than_the_device_takes() {
    breaks_at_head(INDIRECT_SPLIT, Broken::IndirectTooLong, |case| {
        case.table(2, 0, &[(0, 0); SIZE as usize + 1]);
    });
    breaks_at_head(INDIRECT_SPLIT, Broken::IndirectTooLong, |case| {
        let huge = Buffer::readable(DmaAddr(0), u32::MAX - 15);
        case.driver.descriptor(&case.world, 2, huge, INDIRECT, 0);
    });
}

#[test]
fn indirect_table_over_the_end_of_the_address_space() {
    breaks_at_head(INDIRECT_SPLIT, Broken::AddressWrap, |case| {
        let wrapping = Buffer::readable(DmaAddr(u64::MAX - 16), 32);
        case.driver
            .descriptor(&case.world, 2, wrapping, INDIRECT, 0);
    });
}

#[test]
fn indirect_table_that_is_not_mapped() {
    use virtq::device::Fault;
    breaks_at_head(
        INDIRECT_SPLIT,
        Broken::IndirectFault(Fault::NoMapping),
        |case| {
            let nowhere = Buffer::readable(DmaAddr(16), 32);
            case.driver.descriptor(&case.world, 2, nowhere, INDIRECT, 0);
        },
    );
}

#[test]
fn next_outside_the_indirect_table() {
    breaks_at_head(INDIRECT_SPLIT, Broken::BadNext, |case| {
        case.table(2, 0, &[(NEXT, 2), (0, 0)]);
    });
}

#[test]
fn loop_in_an_indirect_table() {
    breaks_at_head(INDIRECT_SPLIT, Broken::Loop, |case| {
        case.table(2, 0, &[(NEXT, 1), (NEXT, 0)]);
    });
}

#[test]
fn indirect_table_after_other_descriptors_is_allowed() {
    for mut case in cases(INDIRECT_SPLIT) {
        case.descriptor(2, NEXT, 3);
        // Out of order in the table, and the device must ignore WRITE on the table itself.
        case.table(3, WRITE, &[(NEXT, 2), (WRITE, 0), (NEXT, 1)]);
        case.driver.offer(&case.world, 2);
        let mut queue = DeviceQueue::new(&case.config, case.world.memory()).expect("checked");
        let chain = pop(&mut queue);
        assert_eq!((chain.readable_len(), chain.writable_len()), (3, 1));
        assert_eq!(pull_all(&queue, &chain), b"xxx");
    }
}
