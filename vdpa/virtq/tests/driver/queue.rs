//! The driver side of a split queue against a device side by the specification.

use crate::common::{Case, Message, Setup, round_trip};
use virtq::{
    AddReason, CreateError, DmaBuffer, DmaError, Notify, Pending, Queue, QueueConfig, RingFeatures,
};

const PLAIN: RingFeatures = RingFeatures::NONE;
const EVENT: RingFeatures = RingFeatures::NONE.with_event_idx(true);
const INDIRECT: RingFeatures = RingFeatures::NONE.with_indirect(true);
const BOTH: RingFeatures = RingFeatures::NONE.with_event_idx(true).with_indirect(true);
const ALL: [RingFeatures; 4] = [PLAIN, EVENT, INDIRECT, BOTH];

#[test]
fn a_chain_reaches_the_device_and_comes_back() {
    for features in ALL {
        let Case {
            mut queue,
            mut device,
            setup,
        } = Case::new(8, features);
        let token = queue.add(setup.message(b"ping", 16)).unwrap();
        assert!(
            device.pop().is_none(),
            "nothing is visible before it is published"
        );
        assert_eq!(queue.publish(), Notify::Needed);

        let request = device.pop().unwrap();
        assert_eq!(device.read(&request), b"ping");
        device.write(&request, 0, b"pong!");
        assert!(queue.take().unwrap().is_none());
        device.complete(request.head.into(), 5);

        let used = queue.take().unwrap().unwrap();
        assert_eq!((used.token, used.written), (token, 5));
        assert_eq!(&used.chain.writable.unwrap()[..5], b"pong!");
        assert_eq!((queue.free(), queue.in_flight()), (8, 0));
    }
}

#[test]
fn a_batch_costs_one_notification() {
    for features in ALL {
        let Case {
            mut queue,
            mut device,
            setup,
        } = Case::new(8, features);
        for _ in 0..4 {
            queue.add(setup.message(b"x", 0)).unwrap();
        }
        assert_eq!(queue.publish(), Notify::Needed);
        assert_eq!(queue.publish(), Notify::NotNeeded, "nothing new to publish");
        let seen = std::iter::from_fn(|| device.pop()).count();
        assert_eq!(seen, 4);
        let counters = queue.statistics().snapshot();
        assert_eq!(
            (counters.added, counters.kicks, counters.suppressed),
            (4, 1, 0)
        );
    }
}

#[test]
fn a_device_that_looks_anyway_is_not_notified() {
    let Case {
        mut queue,
        device,
        setup,
    } = Case::new(8, PLAIN);
    device.set_no_notify(1);
    queue.add(setup.message(b"x", 0)).unwrap();
    assert_eq!(queue.publish(), Notify::NotNeeded);
    device.set_no_notify(0);
    queue.add(setup.message(b"x", 0)).unwrap();
    assert_eq!(queue.publish(), Notify::Needed);
}

/// The rule of VIRTIO 1.2, 2.7.10.1: exactly the publication that passes the event index notifies.
#[test]
fn one_armed_event_gives_one_notification() {
    let Case {
        mut queue,
        device,
        setup,
    } = Case::new(8, EVENT);
    device.set_avail_event(0);
    let notified: Vec<_> = (0..4)
        .map(|_| {
            queue.add(setup.message(b"x", 0)).unwrap();
            queue.publish()
        })
        .collect();
    assert_eq!(
        notified,
        [
            Notify::Needed,
            Notify::NotNeeded,
            Notify::NotNeeded,
            Notify::NotNeeded
        ]
    );
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_batch_across_the_index_wrap_notifies() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(4, EVENT);
    for _ in 0..65534 {
        round_trip(&mut queue, &mut device, &setup);
    }
    device.set_avail_event(65534);
    for _ in 0..3 {
        queue.add(setup.message(b"x", 0)).unwrap();
    }
    assert_eq!(
        queue.publish(),
        Notify::Needed,
        "65534 lies between 65534 and 1"
    );
    assert_eq!(std::iter::from_fn(|| device.pop()).count(), 3);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_chain_left_behind_for_a_whole_wrap_is_still_in_flight() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(4, PLAIN);
    let slow = queue.add(setup.message(b"slow", 0)).unwrap();
    let _ = queue.publish();
    let slow_request = device.pop().unwrap();
    for _ in 0..65536 {
        round_trip(&mut queue, &mut device, &setup);
    }
    device.complete(slow_request.head.into(), 0);
    assert_eq!(queue.take().unwrap().unwrap().token, slow);
}

#[test]
fn interrupts_come_only_when_asked_for() {
    for features in ALL {
        let Case {
            mut queue,
            mut device,
            setup,
        } = Case::new(8, features);
        assert_eq!(queue.enable_interrupts(), Pending::No);
        round_trip(&mut queue, &mut device, &setup);
        assert!(device.wants_interrupt());

        queue.disable_interrupts();
        round_trip(&mut queue, &mut device, &setup);
        assert!(!device.wants_interrupt());

        queue.add(setup.message(b"x", 0)).unwrap();
        let _ = queue.publish();
        let request = device.pop().unwrap();
        device.complete(request.head.into(), 0);
        assert_eq!(
            queue.enable_interrupts(),
            Pending::Yes,
            "it came before interrupts were on"
        );
    }
}

#[test]
fn a_driver_that_polls_is_not_interrupted_for_what_it_took_early() {
    for features in ALL {
        let Case {
            mut queue,
            mut device,
            setup,
        } = Case::new(8, features);
        queue.disable_interrupts();
        for _ in 0..3 {
            round_trip(&mut queue, &mut device, &setup);
            queue.disable_interrupts();
            assert!(
                !device.wants_interrupt(),
                "it judges after the driver has taken"
            );
        }
    }
}

#[test]
fn a_full_queue_gives_the_chain_back() {
    let Case {
        mut queue, setup, ..
    } = Case::new(4, PLAIN);
    queue.add(setup.message(b"two descriptors", 4)).unwrap();
    queue.add(setup.message(b"two descriptors", 4)).unwrap();
    let error = queue.add(setup.message(b"third", 0)).unwrap_err();
    assert_eq!(error.reason, AddReason::Full);
    assert_eq!(&error.chain.readable.unwrap()[..], b"third");
}

#[test]
fn indirect_chains_take_one_descriptor_each() {
    let Case {
        mut queue, setup, ..
    } = Case::new(4, INDIRECT);
    for _ in 0..4 {
        queue.add(setup.message(b"two segments", 4)).unwrap();
    }
    assert_eq!(
        queue.add(setup.message(b"x", 0)).unwrap_err().reason,
        AddReason::Full
    );
}

#[test]
fn an_empty_chain_and_an_endless_one_are_refused() {
    let Case {
        mut queue, setup, ..
    } = Case::new(2, INDIRECT);
    let empty = Message {
        readable: None,
        writable: None,
        repeat: 1,
    };
    assert_eq!(queue.add(empty).unwrap_err().reason, AddReason::Empty);
    let long = Message {
        repeat: 3,
        ..setup.message(b"x", 0)
    };
    assert_eq!(
        queue.add(long).unwrap_err().reason,
        AddReason::TooLong,
        "longer than the queue"
    );
}

#[test]
fn sizes_that_no_split_queue_has_are_refused() {
    let setup = Setup::new();
    for size in [0, 3, 40000] {
        let config = QueueConfig {
            size,
            align: 1,
            features: PLAIN,
        };
        let error = Queue::<Message>::new(&config, &setup.allocator(), &setup.hold).unwrap_err();
        assert_eq!(error, CreateError::BadSize);
    }
    let config = QueueConfig {
        size: 4,
        align: 3,
        features: PLAIN,
    };
    let error = Queue::<Message>::new(&config, &setup.allocator(), &setup.hold).unwrap_err();
    assert_eq!(error, CreateError::BadAlignment);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn the_largest_queue_works() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(32768, PLAIN);
    round_trip(&mut queue, &mut device, &setup);
}

#[test]
fn the_parts_are_aligned_as_the_device_asks() {
    let setup = Setup::new();
    let config = QueueConfig {
        size: 8,
        align: 4096,
        features: PLAIN,
    };
    let queue = Queue::<Message>::new(&config, &setup.allocator(), &setup.hold).unwrap();
    let parts = queue.addresses();
    for addr in [parts.descriptor, parts.driver, parts.device] {
        assert_eq!(addr.0 % 4096, 0);
    }
}

/// QEMU before 9.0 loses half of such an element behind an IOMMU.
#[test]
#[cfg_attr(
    miri,
    ignore = "hundreds of queues, of which only the addresses matter"
)]
fn no_used_element_of_the_usual_sizes_straddles_pages() {
    for size in (0..=8).map(|bits| 1 << bits) {
        let setup = Setup::new();
        let config = QueueConfig {
            size,
            align: 1,
            features: PLAIN,
        };
        // On a heap that is in use they lie anywhere.
        let mut kept = Vec::new();
        for step in 1..64 {
            let queue = Queue::<Message>::new(&config, &setup.allocator(), &setup.hold).unwrap();
            let first = queue.addresses().device.0 + 4;
            for element in (0..u64::from(size)).map(|index| first + 8 * index) {
                assert_eq!(element / 4096, (element + 7) / 4096, "{size}: {element:#x}");
            }
            let gap = DmaBuffer::new(&setup.allocator(), 16 * step).unwrap();
            kept.push((queue, gap));
        }
    }
}

#[test]
fn an_allocation_that_fails_leaves_nothing_behind() {
    let setup = Setup::limited(600);
    let config = QueueConfig {
        size: 16,
        align: 1,
        features: INDIRECT,
    };
    let error = Queue::<Message>::new(&config, &setup.allocator(), &setup.hold).unwrap_err();
    assert_eq!(error, CreateError::Memory(DmaError::OutOfMemory));
    assert_eq!(setup.dma.outstanding(), 0);
}

#[test]
fn a_buffer_is_cut_without_copying() {
    let setup = Setup::new();
    let parts = DmaBuffer::pool(&setup.allocator(), 3, 100).unwrap();
    let addresses: Vec<_> = parts
        .iter()
        .map(|part| part.addr().0 - parts[0].addr().0)
        .collect();
    assert_eq!(addresses, [0, 100, 200]);
    assert!(parts.iter().all(|part| part.len() == 100));
    drop(parts);
    assert_eq!(setup.dma.outstanding(), 0);
}

/// An indirect table takes one descriptor, so that a ring holds as many chains as it has of these.
#[test]
fn chains_that_pile_up_take_one_descriptor_each() {
    for packed in [false, true] {
        for in_order in [false, true] {
            let features = INDIRECT.with_packed(packed).with_in_order(in_order);
            let setup = Setup::new();
            let config = QueueConfig {
                size: 32,
                align: 1,
                features,
            };
            let mut queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
            for number in 0..32 {
                queue.add(setup.message(&[number], 4)).unwrap();
            }
            assert_eq!(queue.free(), 0);
        }
    }
}
