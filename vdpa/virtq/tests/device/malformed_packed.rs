//! What a hostile driver can write into a packed ring alone: laps, wrap counters and ids. Beside
//! `malformed.rs`, which has what either format can say.

use crate::common::*;
use virtq::RingFeatures;
use virtq::device::{Broken, DeviceConfig, DeviceQueue};

const SIZE: u16 = 6;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const INDIRECT_PACKED: RingFeatures = PACKED.with_indirect(true);

struct Case {
    world: World,
    driver: PackedDriver,
    config: DeviceConfig,
}

impl Case {
    /// The next descriptor names a byte.
    fn put(&mut self, id: u16, flags: u16) {
        let byte = Buffer::with(&self.world, b"x");
        self.put_buffer(byte, id, flags);
    }

    fn put_buffer(&mut self, buffer: Buffer, id: u16, flags: u16) {
        self.driver.put(&self.world, buffer, id, flags);
    }

    /// A table of these flags.
    fn table(&self, entries: &[u16]) -> Buffer {
        let table = self.world.allocate(16 * entries.len(), 16);
        for (place, &flags) in (0..).zip(entries) {
            let byte = Buffer::with(&self.world, b"x");
            self.world
                .write_descriptor(table.0 + 16 * place, byte, 0xdead, flags);
        }
        Buffer::readable(
            table,
            u32::try_from(16 * entries.len()).expect("a small table"),
        )
    }

    fn queue(&self) -> DeviceQueue<SharedMemory> {
        DeviceQueue::new(&self.config, self.world.memory()).expect("checked")
    }
}

/// A device that must find `expected` in what `write` puts into the ring, and can give the chain
/// back by the id, if it can be told.
fn breaks_with(
    features: RingFeatures,
    id: Option<u16>,
    expected: Broken,
    write: impl Fn(&mut Case),
) {
    for mut case in cases(features) {
        write(&mut case);
        case.driver.publish(&case.world);
        let mut queue = case.queue();
        assert_eq!(breaks(&mut queue), expected);
        let chain = queue.take_abandoned();
        assert_eq!(chain.as_ref().map(virtq::device::Chain::id), id);
        let Some(chain) = chain else {
            assert!(!case.driver.has_used(&case.world));
            continue;
        };
        assert!(chain.readable().is_empty() && chain.writable().is_empty());
        queue.complete(chain, 0).expect("the ring is there");
        assert!(queue.notify());
        assert!(case.driver.has_used(&case.world));
    }
}

fn cases(features: RingFeatures) -> [Case; 2] {
    World::both().map(|world| {
        let driver = Driver::new(&world, SIZE, features);
        let config = config(&driver);
        let Driver::Packed(driver) = driver else {
            panic!("a packed ring was asked for");
        };
        Case {
            world,
            driver,
            config,
        }
    })
}

#[test]
fn descriptors_of_another_lap_are_not_offered() {
    for case in cases(PACKED) {
        let byte = Buffer::with(&case.world, b"x");
        for flags in [0, USED, AVAIL | USED] {
            case.driver.descriptor(&case.world, 0, byte, 1, flags);
            let mut queue = case.queue();
            assert!(queue.pop().is_ok_and(|chain| chain.is_none()));
        }
    }
}

#[test]
fn chain_runs_into_a_descriptor_that_is_not_available() {
    breaks_with(PACKED, None, Broken::NotAvailable, |case| {
        case.put(1, NEXT);
        case.put(1, NEXT);
    });
}

#[test]
fn chain_goes_on_with_the_wrong_wrap_counter() {
    breaks_with(PACKED, None, Broken::NotAvailable, |case| {
        case.put(1, NEXT);
        let byte = Buffer::with(&case.world, b"x");
        case.driver.descriptor(&case.world, 1, byte, 1, USED);
    });
}

#[test]
fn chain_keeps_its_wrap_counter_over_the_end_of_the_ring() {
    for mut case in cases(PACKED) {
        let mut queue = case.queue();
        for id in 0..SIZE - 1 {
            case.put(id, 0);
            case.driver.publish(&case.world);
            let chain = pop(&mut queue);
            queue.complete(chain, 0).expect("the ring is there");
            queue.publish().expect("the ring is there");
        }
        case.put(9, NEXT);
        let byte = Buffer::with(&case.world, b"x");
        case.driver.descriptor(&case.world, 0, byte, 9, AVAIL);
        case.driver.publish(&case.world);
        assert_eq!(breaks(&mut queue), Broken::NotAvailable);
    }
}

#[test]
fn chain_longer_than_the_ring() {
    breaks_with(PACKED, None, Broken::Overrun, |case| {
        for _ in 0..SIZE {
            case.put(1, NEXT);
        }
    });
}

#[test]
fn descriptors_in_flight_offered_again() {
    for mut case in cases(PACKED) {
        case.config.in_flight_max = SIZE + 1;
        let mut queue = case.queue();
        for id in 0..SIZE {
            case.put(id, 0);
        }
        case.driver.publish(&case.world);
        for _ in 0..SIZE {
            let _kept = pop(&mut queue);
        }
        assert!(queue.pop().is_ok_and(|chain| chain.is_none()));
        case.put(100, 0);
        case.driver.publish(&case.world);
        assert_eq!(breaks(&mut queue), Broken::Overrun);
    }
}

#[test]
fn id_offered_while_in_flight() {
    for mut case in cases(PACKED) {
        let mut queue = case.queue();
        case.put(0xffff, 0);
        case.put(0xffff, 0);
        case.driver.publish(&case.world);
        let chain = pop(&mut queue);
        assert_eq!(breaks(&mut queue), Broken::Duplicate);
        assert!(
            queue.take_abandoned().is_none(),
            "the id belongs to the first chain"
        );
        queue.complete(chain, 0).expect("the ring is there");
    }
}

#[test]
fn readable_after_writable_in_the_middle() {
    breaks_with(PACKED, None, Broken::ReadableAfterWritable, |case| {
        case.put(0, WRITE | NEXT);
        case.put(0, NEXT);
        case.put(7, 0);
    });
}

#[test]
fn indirect_table_with_a_successor() {
    breaks_with(INDIRECT_PACKED, None, Broken::IndirectChained, |case| {
        let table = case.table(&[0]);
        case.put_buffer(table, 7, INDIRECT | NEXT);
        case.put(7, 0);
    });
}

#[test]
fn indirect_table_with_a_predecessor() {
    breaks_with(INDIRECT_PACKED, Some(7), Broken::IndirectChained, |case| {
        case.put(7, NEXT);
        let table = case.table(&[0]);
        case.put_buffer(table, 7, INDIRECT);
    });
}

/// VIRTIO 1.2, 2.8.7: the device ignores all flags but WRITE, and so cannot be led to a nested
/// table.
#[test]
fn other_flags_in_an_indirect_table_are_ignored() {
    for mut case in cases(INDIRECT_PACKED) {
        let table = case.table(&[NEXT, INDIRECT, AVAIL | WRITE, USED | WRITE]);
        case.put_buffer(table, 7, INDIRECT | WRITE);
        case.driver.publish(&case.world);
        let mut queue = case.queue();
        let chain = pop(&mut queue);
        assert_eq!((chain.readable_len(), chain.writable_len()), (2, 2));
        assert_eq!(pull_all(&queue, &chain), b"xx");
    }
}
