//! The device side's rounds: take, copy, give back; in both formats and over both kinds of memory.

use crate::common::*;
use virtq::device::{CompleteError, DeviceConfig, DeviceQueue, NewError, PopError};
use virtq::{DmaAddr, RingFeatures, RingState};

/// Runs a test in both formats over both memories.
fn everywhere(features: RingFeatures, test: impl Fn(&World, RingFeatures)) {
    for packed in [false, true] {
        for world in World::both() {
            test(&world, features.with_packed(packed));
        }
    }
}

#[test]
fn a_request_is_read_answered_and_returned() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        assert!(queue.pop().unwrap().is_none());
        let answer = Buffer::room(world, 100);
        let status = Buffer::room(world, 1);
        let id = driver.send(world, &[Buffer::with(world, b"request"), answer, status]);

        let chain = pop(&mut queue);
        assert_eq!(chain.id(), id);
        assert_eq!((chain.readable().len(), chain.writable().len()), (1, 2));
        assert_eq!((chain.readable_len(), chain.writable_len()), (7, 101));
        assert_eq!(pull_all(&queue, &chain), b"request");
        assert_eq!(queue.push(&chain, 0, &[7; 100]), Ok(100));
        assert_eq!(queue.push(&chain, 100, &[9]), Ok(1));
        assert_eq!(queue.in_flight(), 1);
        queue.complete(chain, 101).unwrap();
        assert_eq!(driver.take(world), None, "not before it is published");
        queue.publish().unwrap();

        assert_eq!(driver.take(world), Some((id, 101)));
        assert_eq!(world.read(answer.addr, 100), [7; 100]);
        assert_eq!(world.read(status.addr, 1), [9]);
        assert_eq!(queue.in_flight(), 0);
        assert_eq!(
            (queue.counters().popped, queue.counters().completed),
            (1, 1)
        );
    });
}

#[test]
fn copies_start_at_an_offset_and_end_with_the_chain() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        let room = [Buffer::room(world, 3), Buffer::room(world, 4)];
        let text = [Buffer::with(world, b"abc"), Buffer::with(world, b"defg")];
        driver.send(world, &[text[0], text[1], room[0], room[1]]);
        let chain = pop(&mut queue);
        let mut bytes = [0; 8];
        assert_eq!(queue.pull(&chain, 2, &mut bytes[..3]), Ok(3));
        assert_eq!(&bytes[..3], b"cde");
        assert_eq!(queue.pull(&chain, 3, &mut bytes), Ok(4));
        assert_eq!(&bytes[..4], b"defg");
        assert_eq!(queue.pull(&chain, 7, &mut bytes), Ok(0));
        assert_eq!(queue.pull(&chain, u64::MAX, &mut bytes), Ok(0));
        assert_eq!(queue.push(&chain, 2, b"XYZ"), Ok(3));
        assert_eq!(queue.push(&chain, 6, b"123"), Ok(1));
        assert_eq!(world.read(room[0].addr, 3), *b"\0\0X");
        assert_eq!(world.read(room[1].addr, 4), *b"YZ\x001");
        queue.complete(chain, 0).unwrap();
    });
}

#[test]
fn an_indirect_table_gives_the_same_chain() {
    let features = SPLIT.with_indirect(true);
    everywhere(features, |world, features| {
        let mut driver = Driver::new(world, 4, features);
        let mut queue = device(&driver, world);
        world.allocate(5, 1); // So that the table is not aligned.
        let buffers = [
            Buffer::with(world, b"in"),
            Buffer::room(world, 2),
            Buffer::room(world, 3),
        ];
        let id = driver.add(world, &buffers, Offer::Indirect).unwrap();
        driver.publish(world);
        let chain = pop(&mut queue);
        let seen: Vec<_> = chain
            .readable()
            .iter()
            .chain(chain.writable())
            .map(|s| (s.addr, s.len))
            .collect();
        assert_eq!(seen, buffers.map(|buffer| (buffer.addr, buffer.len)));
        queue.complete(chain, 5).unwrap();
        queue.publish().unwrap();
        assert_eq!(driver.take(world), Some((id, 5)));
    });
}

#[test]
fn completions_of_a_batch_appear_at_once() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        // Several laps, with batches that go over the ring's end.
        for _ in 0..10 {
            let ids: Vec<u16> = (0..3)
                .map(|_| driver.send(world, &[Buffer::room(world, 1); 2]))
                .collect();
            for _ in &ids {
                let chain = pop(&mut queue);
                queue.complete(chain, 2).unwrap();
                assert_eq!(driver.take(world), None);
            }
            queue.publish().unwrap();
            let taken: Vec<_> = std::iter::from_fn(|| driver.take(world)).collect();
            assert_eq!(taken, ids.iter().map(|&id| (id, 2)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn chains_may_return_in_any_order() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        for _ in 0..5 {
            let first = driver.send(world, &[Buffer::room(world, 1); 3]);
            let second = driver.send(world, &[Buffer::room(world, 1)]);
            let (one, two) = (pop(&mut queue), pop(&mut queue));
            queue.complete(two, 1).unwrap();
            queue.complete(one, 3).unwrap();
            queue.publish().unwrap();
            assert_eq!(driver.take(world), Some((second, 1)));
            assert_eq!(driver.take(world), Some((first, 3)));
        }
    });
}

#[test]
fn in_order_completions_wait_for_their_turn() {
    let features = SPLIT.with_in_order(true);
    everywhere(features, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        for _ in 0..7 {
            let ids = [(); 3].map(|()| driver.send(world, &[Buffer::room(world, 1); 2]));
            let [one, two, three] = [(); 3].map(|()| pop(&mut queue));
            queue.complete(three, 3 % 2).unwrap();
            queue.publish().unwrap();
            assert_eq!(driver.take(world), None);
            queue.complete(one, 1).unwrap();
            queue.publish().unwrap();
            assert_eq!(driver.take(world), Some((ids[0], 1)));
            assert_eq!(driver.take(world), None);
            queue.complete(two, 2).unwrap();
            queue.publish().unwrap();
            assert_eq!(driver.take(world), Some((ids[1], 2)));
            assert_eq!(driver.take(world), Some((ids[2], 1)));
        }
    });
}

/// VIRTIO 1.2, 2.8.9. Between the chains that are used completely lies one that is not, and so
/// needs a descriptor.
#[test]
fn in_order_one_descriptor_returns_all_chains_that_are_used_completely() {
    let features = PACKED.with_in_order(true);
    for world in World::both() {
        let mut driver = Driver::new(&world, 16, features);
        let mut queue = device(&driver, &world);
        for _ in 0..5 {
            let ids = [(); 6].map(|()| driver.send(&world, &[Buffer::room(&world, 2)]));
            let written = [2, 2, 1, 2, 2, 2];
            let chains = [(); 6].map(|()| pop(&mut queue));
            let before = queue.state();
            for (chain, written) in chains.into_iter().zip(written) {
                queue.complete(chain, written).unwrap();
            }
            assert_eq!(
                (before, queue.state()),
                (None, None),
                "nothing is published"
            );
            queue.publish().unwrap();
            let Driver::Packed(ring) = &driver else {
                panic!("not a packed ring");
            };
            // The third ends the first batch, the sixth the second.
            assert_eq!(ring.used_ids(&world, 2), [ids[2], ids[5]]);
            for (id, written) in ids.into_iter().zip(written) {
                assert_eq!(driver.take(&world), Some((id, written)));
            }
            assert_eq!(driver.take(&world), None);
        }
    }
}

#[test]
fn no_more_is_reported_than_the_chain_holds() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 4, features);
        let mut queue = device(&driver, world);
        let id = driver.send(world, &[Buffer::with(world, b"xx"), Buffer::room(world, 5)]);
        let chain = pop(&mut queue);
        queue.complete(chain, 6).unwrap();
        queue.publish().unwrap();
        assert_eq!(driver.take(world), Some((id, 5)));
    });
}

#[test]
fn empty_buffers_are_left_out() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        let nowhere = DmaAddr(u64::MAX);
        let id = driver.send(
            world,
            &[
                Buffer::readable(nowhere, 0),
                Buffer::with(world, b"a"),
                Buffer::writable(nowhere, 0),
                Buffer::room(world, 1),
            ],
        );
        let chain = pop(&mut queue);
        assert_eq!((chain.readable().len(), chain.writable().len()), (1, 1));
        queue.complete(chain, 1).unwrap();
        queue.publish().unwrap();
        assert_eq!(driver.take(world), Some((id, 1)));
    });
}

#[test]
fn a_chain_of_empty_buffers_is_a_chain() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        let id = driver.send(world, &[Buffer::readable(DmaAddr(0), 0)]);
        let chain = pop(&mut queue);
        assert_eq!((chain.readable_len(), chain.writable_len()), (0, 0));
        queue.complete(chain, 0).unwrap();
        queue.publish().unwrap();
        assert_eq!(driver.take(world), Some((id, 0)));
    });
}

#[test]
fn more_chains_than_can_be_kept_stay_with_the_driver() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let config = DeviceConfig {
            in_flight_max: 1,
            ..config(&driver)
        };
        let mut queue = DeviceQueue::new(&config, world.memory()).unwrap();
        driver.send(world, &[Buffer::room(world, 1)]);
        let chain = pop(&mut queue);
        assert!(queue.pop().unwrap().is_none(), "none is there");
        let second = driver.send(world, &[Buffer::room(world, 1)]);
        assert_eq!(queue.pop().unwrap_err(), PopError::Busy);
        queue.complete(chain, 1).unwrap();
        assert_eq!(pop(&mut queue).id(), second);
    });
}

#[test]
fn a_chain_of_another_queue_is_refused() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut before = device(&driver, world);
        driver.send(world, &[Buffer::room(world, 1)]);
        let chain = pop(&mut before);
        // The device was reset and its queue made anew; a late completion arrives.
        let mut after = device(&driver, world);
        let fresh = pop(&mut after);
        assert_eq!(after.complete(chain, 1), Err(CompleteError::Foreign));
        assert_eq!(after.in_flight(), 1);
        after.complete(fresh, 1).unwrap();
    });
}

#[test]
fn segments_can_be_used_in_place() {
    everywhere(SPLIT, |world, features| {
        let mut driver = Driver::new(world, 8, features);
        let mut queue = device(&driver, world);
        let room = Buffer::room(world, 150);
        driver.send(world, &[Buffer::with(world, &[5; 200]), room]);
        let chain = pop(&mut queue);
        let mut sum = 0;
        for piece in queue.readable_pieces(&chain) {
            let piece = piece.unwrap();
            for offset in 0..piece.len as usize {
                // SAFETY: the offset lies inside the piece.
                let at = unsafe { piece.ptr.add(offset) };
                // SAFETY: a piece is readable.
                sum += u32::from(unsafe { at.read() });
            }
        }
        assert_eq!(sum, 1000);
        let mut total = 0;
        for piece in queue.writable_pieces(&chain) {
            let piece = piece.unwrap();
            // SAFETY: the piece was asked for in order to write.
            unsafe { piece.ptr.write_bytes(6, piece.len as usize) };
            total += piece.len;
        }
        assert_eq!(total, 150);
        assert_eq!(world.read(room.addr, 150), [6; 150]);
        queue.complete(chain, total).unwrap();
    });
}

#[test]
fn the_largest_ring_works_to_its_last_descriptor() {
    for packed in [false, true] {
        let world = World::direct_of(0x20_0000);
        let features = SPLIT.with_packed(packed);
        let mut driver = Driver::new(&world, 32768, features);
        let config = DeviceConfig {
            in_flight_max: 2,
            ..config(&driver)
        };
        let mut queue = DeviceQueue::new(&config, world.memory()).unwrap();
        let byte = Buffer::room(&world, 1);
        for _ in 0..3 {
            let id = driver.send(&world, &vec![byte; 32768]);
            let chain = pop(&mut queue);
            assert_eq!(chain.writable_len(), 32768);
            queue.complete(chain, 1).unwrap();
            queue.publish().unwrap();
            assert_eq!(driver.take(&world), Some((id, 1)));
        }
    }
}

#[test]
fn a_packed_ring_of_any_size_works() {
    for size in [1, 3, 5, 100] {
        let world = World::translated();
        let mut driver = Driver::new(&world, size, PACKED);
        let mut queue = device(&driver, &world);
        for _ in 0..3 * size {
            let id = driver.send(
                &world,
                &vec![Buffer::room(&world, 1); usize::from(size.min(2))],
            );
            let chain = pop(&mut queue);
            queue.complete(chain, 1).unwrap();
            queue.publish().unwrap();
            assert_eq!(driver.take(&world), Some((id, 1)));
        }
    }
}

#[test]
fn unusable_configurations_are_refused() {
    let world = World::direct();
    let split = config(&Driver::new(&world, 8, SPLIT));
    let packed = config(&Driver::new(&world, 8, PACKED));
    let error = |config: &DeviceConfig| DeviceQueue::new(config, world.memory()).err();
    assert_eq!(error(&split), None);
    for size in [0, 3, 32769] {
        assert_eq!(
            error(&DeviceConfig { size, ..split }),
            Some(NewError::BadSize)
        );
    }
    for size in [0, 32769] {
        assert_eq!(
            error(&DeviceConfig { size, ..packed }),
            Some(NewError::BadSize)
        );
    }
    let bad_states = [
        DeviceConfig {
            state: packed.state,
            ..split
        },
        DeviceConfig {
            state: split.state,
            ..packed
        },
        DeviceConfig {
            state: RingState::Packed {
                index: 8,
                wrap: true,
            },
            ..packed
        },
    ];
    for config in bad_states {
        assert_eq!(error(&config), Some(NewError::BadState));
    }
    for misaligned in [1, 8] {
        let mut config = split;
        config.addresses.descriptor.0 += misaligned;
        assert_eq!(error(&config), Some(NewError::BadAddress));
    }
    let mut config = split;
    config.addresses.device = DmaAddr(u64::MAX - 3);
    assert_eq!(error(&config), Some(NewError::BadAddress));
    assert_eq!(
        error(&DeviceConfig {
            chain_max: 0,
            ..split
        }),
        Some(NewError::BadLimit)
    );
    assert_eq!(
        error(&DeviceConfig {
            in_flight_max: 0,
            ..split
        }),
        Some(NewError::BadLimit)
    );
}
