//! What a hostile driver can write into a split ring alone: heads, indices and links. Beside
//! `malformed.rs`, which has what either format can say.

use crate::common::*;
use virtq::device::{Broken, DeviceConfig, DeviceQueue};
use virtq::{DmaAddr, RingFeatures};

const SIZE: u16 = 8;
const INDIRECT_SPLIT: RingFeatures = SPLIT.with_indirect(true);

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

/// A device that must find `expected` in what `write` puts into the ring, and can give the chain of
/// head 2 back.
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
