//! Stopping a device side and going on with another from its state.

use crate::common::*;
use virtq::RingState;
use virtq::device::{DeviceConfig, DeviceQueue};

/// Chains that the driver has published and the first device has not taken are served by the
/// second, and each chain returns once, wherever in the ring the change happens.
#[test]
fn traffic_goes_on_from_the_state() {
    for packed in [false, true] {
        for world in World::both() {
            let features = SPLIT.with_packed(packed).with_event_idx(true);
            let mut driver = Driver::new(&world, 8, features);
            let start = config(&driver);
            let mut queue = device(&driver, &world);
            let buffers = [Buffer::with(&world, b"ab"), Buffer::room(&world, 2)];
            for _ in 0..30 {
                assert!(!driver.enable_interrupts(&world));
                let ids = [(); 3].map(|()| driver.send(&world, &buffers));
                let first = pop(&mut queue);
                assert_eq!(queue.state(), None, "a chain is in flight");
                queue.complete(first, 2).unwrap();
                assert_eq!(queue.state(), None, "a completion is not published");
                assert!(queue.notify());
                let state = queue.state().unwrap();

                queue = DeviceQueue::new(&DeviceConfig { state, ..start }, world.memory()).unwrap();
                assert_eq!(queue.state(), Some(state));
                for &id in &ids[1..] {
                    let chain = pop(&mut queue);
                    assert_eq!(chain.id(), id);
                    queue.complete(chain, 1).unwrap();
                }
                assert!(queue.pop().unwrap().is_none());
                let _ = queue.notify();
                let taken = [(); 4].map(|()| driver.take(&world));
                assert_eq!(
                    taken,
                    [
                        Some((ids[0], 2)),
                        Some((ids[1], 1)),
                        Some((ids[2], 1)),
                        None
                    ]
                );
            }
        }
    }
}

#[test]
fn a_state_counts_chains_or_descriptors_with_their_wraps() {
    let world = World::direct();
    let mut driver = SplitDriver::new(&world, 4, SPLIT);
    driver.start_at(&world, 0xffff);
    let mut driver = Driver::Split(driver);
    let state = RingState::Split { index: 0xffff };
    let config_split = DeviceConfig {
        state,
        ..config(&driver)
    };
    let mut queue = DeviceQueue::new(&config_split, world.memory()).unwrap();
    serve_one(&mut driver, &mut queue, &world, 3);
    assert_eq!(queue.state(), Some(RingState::Split { index: 0 }));

    let mut driver = Driver::new(&world, 5, PACKED);
    let mut queue = device(&driver, &world);
    serve_one(&mut driver, &mut queue, &world, 3);
    assert_eq!(
        queue.state(),
        Some(RingState::Packed {
            index: 3,
            wrap: true
        })
    );
    serve_one(&mut driver, &mut queue, &world, 3);
    assert_eq!(
        queue.state(),
        Some(RingState::Packed {
            index: 1,
            wrap: false
        })
    );
}

fn serve_one(
    driver: &mut Driver,
    queue: &mut DeviceQueue<SharedMemory>,
    world: &World,
    descriptors: usize,
) {
    driver.send(world, &vec![Buffer::room(world, 1); descriptors]);
    let chain = pop(queue);
    queue.complete(chain, 1).expect("the ring is there");
    queue.publish().expect("the ring is there");
    driver.take(world).expect("a chain was completed");
}

/// What a device has taken and cannot finish goes back into the ring, and another one takes it.
#[test]
fn chains_that_are_put_back_are_taken_again_here_or_elsewhere() {
    for features in [SPLIT, PACKED] {
        let in_order = features.with_in_order(true);
        for (world, features) in World::both().into_iter().zip([features, in_order]) {
            let mut driver = Driver::new(&world, 8, features);
            let mut queue = device(&driver, &world);
            let buffers = [Buffer::with(&world, b"ab"), Buffer::room(&world, 2)];
            for _ in 0..20 {
                let ids = [(); 3].map(|()| driver.send(&world, &buffers));
                let first = pop(&mut queue);
                queue.complete(first, 1).unwrap();
                assert!(queue.notify());
                assert_eq!(driver.take(&world), Some((ids[0], 1)));
                let (state, counters) = (queue.state(), queue.counters());

                let (second, third) = (pop(&mut queue), pop(&mut queue));
                let second = queue.put_back(second).unwrap_err();
                assert_eq!((second.id(), queue.in_flight()), (ids[1], 2));
                assert_eq!(queue.is_pending(), Ok(false));
                queue.put_back(third).unwrap();
                queue.put_back(second).unwrap();
                assert_eq!((queue.state(), queue.counters()), (state, counters));
                assert_eq!(queue.is_pending(), Ok(true));
                assert_eq!(pop(&mut queue).id(), ids[1]);

                // That one stays with the old queue, as if its device had been reset.
                let state = state.unwrap();
                let config = DeviceConfig {
                    state,
                    ..config(&driver)
                };
                queue = DeviceQueue::new(&config, world.memory()).unwrap();
                for id in [ids[1], ids[2]] {
                    let chain = pop(&mut queue);
                    assert_eq!(
                        (chain.id(), &pull_all(&queue, &chain)[..]),
                        (id, &b"ab"[..])
                    );
                    queue.complete(chain, 2).unwrap();
                }
                let _ = queue.notify();
                assert_eq!(driver.take(&world), Some((ids[1], 2)));
                assert_eq!(driver.take(&world), Some((ids[2], 2)));
            }
        }
    }
}

#[test]
fn only_the_last_chain_of_this_queue_is_put_back() {
    let world = World::direct();
    let (mut driver, mut other) = (Driver::new(&world, 4, SPLIT), Driver::new(&world, 4, SPLIT));
    let (mut queue, mut stranger) = (device(&driver, &world), device(&other, &world));
    let buffer = [Buffer::room(&world, 1)];
    for driver in [&mut driver, &mut other] {
        driver.send(&world, &buffer);
        driver.send(&world, &buffer);
    }
    let chain = stranger.put_back(pop(&mut queue)).unwrap_err();
    // The one taken after it has been completed, so its place in the ring is not the last.
    let later = pop(&mut queue);
    queue.complete(later, 0).unwrap();
    let chain = queue.put_back(chain).unwrap_err();
    queue.complete(chain, 0).unwrap();
}
