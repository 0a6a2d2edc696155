//! Notifications in both directions: asked for and suppressed, by flag and by index, over every
//! wrap.

use crate::common::*;
use virtq::device::{DeviceConfig, DeviceQueue};
use virtq::{Pending, RingFeatures, RingState};

const SPLIT_EVENT: RingFeatures = SPLIT.with_event_idx(true);
const PACKED_EVENT: RingFeatures = PACKED.with_event_idx(true);
const ALL: [RingFeatures; 4] = [SPLIT, SPLIT_EVENT, PACKED, PACKED_EVENT];

/// Takes and completes everything that is there.
fn serve(queue: &mut DeviceQueue<SharedMemory>) {
    while let Some(chain) = queue.pop().unwrap() {
        queue.complete(chain, 0).unwrap();
    }
}

#[test]
fn a_driver_that_waits_is_notified_once() {
    for features in ALL {
        let world = World::direct();
        let mut driver = Driver::new(&world, 4, features);
        let mut queue = device(&driver, &world);
        for _ in 0..20 {
            assert!(!driver.enable_interrupts(&world));
            driver.send(&world, &[Buffer::room(&world, 1); 3]);
            assert!(!queue.notify(), "nothing was completed");
            serve(&mut queue);
            assert!(queue.notify());
            assert!(!queue.notify(), "nothing new was completed");
            while driver.take(&world).is_some() {}
        }
        let counters = queue.counters();
        assert_eq!((counters.notified, counters.suppressed), (20, 0));
    }
}

#[test]
fn a_driver_that_does_not_wait_is_left_alone() {
    for features in ALL {
        let world = World::direct();
        let mut driver = Driver::new(&world, 4, features);
        let mut queue = device(&driver, &world);
        for _ in 0..20 {
            driver.disable_interrupts(&world);
            driver.send(&world, &[Buffer::room(&world, 1); 3]);
            serve(&mut queue);
            assert!(!queue.notify());
            while driver.take(&world).is_some() {}
        }
        let counters = queue.counters();
        assert_eq!((counters.notified, counters.suppressed), (0, 20));
    }
}

#[test]
fn a_device_that_sleeps_is_notified_and_one_that_looks_is_not() {
    for features in ALL {
        let world = World::direct();
        let mut driver = Driver::new(&world, 4, features);
        let mut queue = device(&driver, &world);
        for _ in 0..20 {
            let buffers = [Buffer::room(&world, 1)];
            assert_eq!(queue.enable_notifications(), Ok(Pending::No));
            driver.add(&world, &buffers, Offer::Direct).unwrap();
            assert!(driver.publish(&world));
            queue.disable_notifications().unwrap();
            driver.add(&world, &buffers, Offer::Direct).unwrap();
            assert!(!driver.publish(&world));
            serve(&mut queue);
            queue.publish().unwrap();
            while driver.take(&world).is_some() {}
        }
    }
}

#[test]
fn a_chain_that_comes_while_falling_asleep_is_seen() {
    for features in ALL {
        let world = World::direct();
        let mut driver = Driver::new(&world, 4, features);
        let mut queue = device(&driver, &world);
        queue.disable_notifications().unwrap();
        assert!(queue.pop().unwrap().is_none());
        driver.send(&world, &[Buffer::room(&world, 1)]);
        assert_eq!(queue.enable_notifications(), Ok(Pending::Yes));
        serve(&mut queue);
        assert_eq!(queue.enable_notifications(), Ok(Pending::No));
    }
}

/// The driver asks for an interrupt at each place around those that a batch completes, one at a
/// time, and the batch starts at each place around the wrap of the index.
#[test]
fn a_split_batch_notifies_if_and_only_if_it_passes_the_event() {
    for start in [0, 5, 0x7ffe, 0xfff0, 0xfffc, 0xfffd, 0xfffe, 0xffff] {
        for batch in 1..=4u16 {
            for offset in -6..=6i16 {
                let world = World::direct();
                let mut driver = SplitDriver::new(&world, 4, SPLIT_EVENT);
                driver.start_at(&world, start);
                driver.set_used_event(&world, start.wrapping_add_signed(offset));
                let mut driver = Driver::Split(driver);
                let state = RingState::Split { index: start };
                let config = DeviceConfig {
                    state,
                    ..config(&driver)
                };
                let mut queue = DeviceQueue::new(&config, world.memory()).unwrap();
                for _ in 0..batch {
                    driver.send(&world, &[Buffer::room(&world, 1)]);
                }
                serve(&mut queue);
                let passed = (0..batch.cast_signed()).contains(&offset);
                assert_eq!(
                    queue.notify(),
                    passed,
                    "{batch} from {start:#x}, event at {offset}"
                );
            }
        }
    }
}

/// As for a split ring, in descriptors, from each place of two laps.
#[test]
fn a_packed_batch_notifies_if_and_only_if_it_passes_the_event() {
    const SIZE: u16 = 7;
    let place = |position: u16| (position % SIZE, (position / SIZE).is_multiple_of(2));
    for start in 2 * SIZE..4 * SIZE {
        for (chains, len) in [(1, 1), (1, 3), (2, 2), (3, 2), (7, 1), (1, 7)] {
            let batch = chains * len;
            // What a driver may ask for: something that it has not taken yet, or will give next.
            for event in start..start + 2 * SIZE {
                let world = World::direct();
                let mut driver = Driver::new(&world, SIZE, PACKED_EVENT);
                let mut queue = device(&driver, &world);
                // Goes to the start one descriptor at a time.
                for _ in 0..start {
                    driver.send(&world, &[Buffer::room(&world, 1)]);
                    serve(&mut queue);
                    let _ = queue.notify();
                    driver.take(&world).unwrap();
                }
                let (index, wrap) = place(event);
                let Driver::Packed(packed) = &driver else {
                    panic!("a packed ring was asked for");
                };
                packed.set_event(&world, index, wrap, 2);
                for _ in 0..chains {
                    driver.send(&world, &vec![Buffer::room(&world, 1); usize::from(len)]);
                }
                serve(&mut queue);
                let passed = event < start + batch;
                assert_eq!(
                    queue.notify(),
                    passed,
                    "{batch} from {start}, event at {event}"
                );
            }
        }
    }
}

/// A driver that polls takes what it finds; when it waits again, the device has completed more than
/// all indices since it looked at the driver's wish.
#[test]
fn more_completions_than_indices_notify_wherever_the_event_is() {
    let world = World::direct();
    let mut driver = SplitDriver::new(&world, 4, SPLIT_EVENT);
    driver.set_used_event(&world, 3);
    driver.start_at(&world, 0);
    let mut driver = Driver::Split(driver);
    let mut queue = device(&driver, &world);
    let buffer = [Buffer::room(&world, 1)];
    for _ in 0..=0xffff {
        driver.send(&world, &buffer);
        serve(&mut queue);
        queue.publish().unwrap();
        driver.take(&world).unwrap();
    }
    assert!(queue.notify());
    // One fewer is a matter of the window: the event has been passed by all but the last place.
    let Driver::Split(split) = &driver else {
        panic!("a split ring was made");
    };
    split.set_used_event(&world, 0xffff);
    for _ in 0..0xffff {
        driver.send(&world, &buffer);
        serve(&mut queue);
        queue.publish().unwrap();
        driver.take(&world).unwrap();
    }
    assert!(!queue.notify());
}

/// Without the event index, the third way to suppress is reserved; a driver that sets it is
/// notified.
#[test]
fn an_event_that_was_not_negotiated_does_not_suppress() {
    let world = World::direct();
    let mut driver = Driver::new(&world, 4, PACKED);
    let Driver::Packed(packed) = &driver else {
        panic!("a packed ring was asked for");
    };
    packed.set_event(&world, 3, true, 2);
    let mut queue = device(&driver, &world);
    driver.send(&world, &[Buffer::room(&world, 1)]);
    serve(&mut queue);
    assert!(queue.notify());
}
