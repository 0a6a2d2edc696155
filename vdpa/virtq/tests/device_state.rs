//! Stopping a device side and going on with another from its state.

mod common_device;

use common_device::*;
use virtq::device::{DeviceConfig, DeviceQueue};
use virtq::{RingFeatures, RingState};

/// Chains that the driver has published and the first device has not taken are served by the second, and
/// each chain returns once, wherever in the ring the change happens.
#[test]
fn traffic_goes_on_from_the_state() {
    for packed in [false, true] {
        for world in World::both() {
            let features = RingFeatures {
                packed,
                event_idx: true,
                ..SPLIT
            };
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
