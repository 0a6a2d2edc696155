//! What is particular to the driver side of a packed queue, to in-order use and to restarts.

use crate::common::{Device, Message, Setup};
use virtq::testing::PackedDevice;
use virtq::{
    Broken, CreateError, DeviceHold, Notify, Queue, QueueConfig, RingFeatures, RingState, StillHeld,
};

const PACKED: RingFeatures = RingFeatures::NONE.with_packed(true);
const EVENT: RingFeatures = PACKED.with_event_idx(true);
const IN_ORDER: RingFeatures = PACKED.with_in_order(true);
const SPLIT_IN_ORDER: RingFeatures = IN_ORDER.with_packed(false);

struct Case {
    queue: Queue<Message>,
    device: PackedDevice,
    setup: Setup,
}

fn case(size: u16, features: RingFeatures) -> Case {
    let setup = Setup::new();
    let config = QueueConfig {
        size,
        align: 1,
        features,
    };
    let queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
    let device = PackedDevice::new(&setup.dma, queue.addresses(), size, features);
    Case {
        queue,
        device,
        setup,
    }
}

fn publish(queue: &mut Queue<Message>, setup: &Setup, count: usize) -> Notify {
    for _ in 0..count {
        queue.add(setup.message(b"x", 4)).unwrap();
    }
    queue.publish()
}

fn round_trip(case: &mut Case) {
    let _ = publish(&mut case.queue, &case.setup, 1);
    let request = case.device.pop().unwrap();
    case.device.finish(&request, 0);
    case.queue.take().unwrap().unwrap();
}

#[test]
fn a_size_that_is_no_power_of_two_wraps() {
    let mut case = case(7, PACKED);
    for _ in 0..100 {
        round_trip(&mut case);
    }
    assert_eq!(case.queue.free(), 7);
}

#[test]
fn nothing_of_a_batch_is_visible_before_it_is_published() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = case(8, PACKED);
    for _ in 0..3 {
        queue.add(setup.message(b"x", 4)).unwrap();
    }
    assert!(device.pop().is_none());
    assert_eq!(queue.publish(), Notify::Needed);
    assert_eq!(std::iter::from_fn(|| device.pop()).count(), 3);
}

#[test]
fn exactly_the_publication_that_passes_the_event_notifies() {
    let Case {
        mut queue,
        device,
        setup,
    } = case(8, EVENT);
    device.set_event((3, true));
    // Each message takes two descriptors: 0 and 1, 2 and 3, 4 and 5.
    assert_eq!(publish(&mut queue, &setup, 1), Notify::NotNeeded);
    assert_eq!(publish(&mut queue, &setup, 1), Notify::Needed);
    assert_eq!(publish(&mut queue, &setup, 1), Notify::NotNeeded);
}

#[test]
fn an_event_in_the_lap_before_is_passed_by_a_batch_across_the_end() {
    let mut case = case(8, EVENT);
    for _ in 0..3 {
        round_trip(&mut case);
    }
    let Case {
        mut queue,
        device,
        setup,
    } = case;
    device.set_event((7, true));
    assert_eq!(
        publish(&mut queue, &setup, 2),
        Notify::Needed,
        "6, 7 and then 0, 1"
    );
    let counters = queue.statistics().snapshot();
    assert_eq!((counters.added, counters.used), (5, 3));
}

#[test]
fn a_device_that_looks_anyway_is_not_notified() {
    let Case {
        mut queue,
        device,
        setup,
    } = case(8, PACKED);
    device.disable_notifications();
    assert_eq!(publish(&mut queue, &setup, 1), Notify::NotNeeded);
}

#[test]
fn a_notification_names_the_next_place_and_its_wrap_counter() {
    let mut case = case(5, PACKED);
    assert_eq!(case.queue.place(), 1 << 15);
    round_trip(&mut case);
    assert_eq!(case.queue.place(), 2 | 1 << 15);
    round_trip(&mut case);
    round_trip(&mut case);
    assert_eq!(
        case.queue.place(),
        1,
        "the second lap has the wrap counter 0"
    );
}

#[test]
fn an_id_outside_the_ring_breaks_the_queue() {
    for id in [8, u16::MAX] {
        let Case {
            mut queue,
            mut device,
            setup,
        } = case(8, PACKED);
        let _ = publish(&mut queue, &setup, 1);
        device.complete(id, 0, 1);
        assert_eq!(queue.take().unwrap_err(), Broken::BadId);
    }
}

#[test]
fn an_id_that_is_not_in_flight_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = case(8, PACKED);
    let _ = publish(&mut queue, &setup, 1);
    device.complete(5, 0, 1);
    assert_eq!(queue.take().unwrap_err(), Broken::NotInFlight);
}

#[test]
fn a_chain_returned_twice_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = case(8, PACKED);
    let _ = publish(&mut queue, &setup, 2);
    let request = device.pop().unwrap();
    device.finish(&request, 0);
    device.finish(&request, 0);
    assert!(queue.take().unwrap().is_some());
    assert_eq!(queue.take().unwrap_err(), Broken::NotInFlight);
}

#[test]
fn a_chain_returned_before_it_was_published_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = case(8, PACKED);
    let _ = publish(&mut queue, &setup, 1);
    let hidden = queue.add(setup.message(b"not yet", 0)).unwrap();
    device.complete(u16::try_from(hidden.index()).unwrap(), 0, 1);
    assert_eq!(queue.take().unwrap_err(), Broken::NotInFlight);
}

#[test]
fn a_used_descriptor_without_a_chain_in_flight_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        ..
    } = case(8, PACKED);
    device.complete(0, 0, 1);
    assert_eq!(queue.take().unwrap_err(), Broken::UsedIndex);
}

#[test]
fn more_written_than_lent_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = case(8, PACKED);
    let _ = publish(&mut queue, &setup, 1);
    let request = device.pop().unwrap();
    device.finish(&request, 5);
    assert_eq!(queue.take().unwrap_err(), Broken::BadLength);
}

#[test]
fn a_wrap_counter_from_another_lap_is_no_used_chain() {
    let mut case = case(4, PACKED);
    for _ in 0..2 {
        round_trip(&mut case);
    }
    // The flags of the first lap are still there.
    assert!(case.queue.take().unwrap().is_none());
    assert!(!case.queue.has_used());
}

/// VIRTIO 1.2, 2.7.9: chains that a device skips are used completely.
#[test]
fn a_batch_in_order_completes_the_chains_before_its_last() {
    for features in [IN_ORDER, SPLIT_IN_ORDER] {
        let setup = Setup::new();
        let config = QueueConfig {
            size: 8,
            align: 1,
            features,
        };
        let mut queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
        let mut device = Device::of(&queue, features, &setup);
        let _ = publish(&mut queue, &setup, 3);
        let batch: Vec<_> = std::iter::from_fn(|| device.pop()).collect();
        device.finish_batch(&batch, 1);
        let written = std::iter::from_fn(|| queue.take().unwrap()).map(|used| used.written);
        assert_eq!(written.collect::<Vec<_>>(), [4, 4, 1]);
    }
}

#[test]
fn a_batch_longer_than_the_used_index_moved_breaks_the_queue() {
    let setup = Setup::new();
    let config = QueueConfig {
        size: 8,
        align: 1,
        features: SPLIT_IN_ORDER,
    };
    let mut queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
    let Device::Split(mut device) = Device::of(&queue, SPLIT_IN_ORDER, &setup) else {
        panic!("the queue is split");
    };
    let _ = publish(&mut queue, &setup, 3);
    let last = std::iter::from_fn(|| device.pop()).last().unwrap();
    device.complete_batch(last.head.into(), 0, 2);
    assert_eq!(queue.take().unwrap_err(), Broken::BadBatch);
}

#[test]
fn a_queue_goes_on_where_another_stood() {
    let mut first = case(6, PACKED);
    for _ in 0..4 {
        round_trip(&mut first);
    }
    let state = first.queue.state().unwrap();
    assert_eq!(
        state,
        RingState::Packed {
            index: 2,
            wrap: false
        }
    );

    let config = QueueConfig {
        size: 6,
        align: 1,
        features: PACKED,
    };
    let setup = Setup::new();
    let queue = Queue::resume(&config, state, &setup.allocator(), &setup.hold).unwrap();
    let place = (2, false);
    let device = PackedDevice::at(&setup.dma, queue.addresses(), 6, PACKED, place);
    let mut second = Case {
        queue,
        device,
        setup,
    };
    assert!(second.device.pop().is_none() && second.queue.take().unwrap().is_none());
    for _ in 0..20 {
        round_trip(&mut second);
    }
}

#[test]
fn a_queue_with_chains_in_flight_stands_nowhere() {
    let Case {
        mut queue, setup, ..
    } = case(8, PACKED);
    let _ = publish(&mut queue, &setup, 1);
    assert_eq!(queue.state(), None);
}

#[test]
fn a_state_of_another_format_or_place_is_refused() {
    let setup = Setup::new();
    let config = QueueConfig {
        size: 6,
        align: 1,
        features: PACKED,
    };
    for state in [
        RingState::Split { index: 0 },
        RingState::Packed {
            index: 6,
            wrap: true,
        },
    ] {
        let result = Queue::<Message>::resume(&config, state, &setup.allocator(), &setup.hold);
        assert_eq!(result.unwrap_err(), CreateError::BadState);
    }
}

#[test]
fn a_queue_that_was_reset_alone_starts_afresh() {
    for features in [PACKED, IN_ORDER, SPLIT_IN_ORDER] {
        let setup = Setup::new();
        setup.hold.hold();
        let hold = DeviceHold::of_queue(&setup.hold);
        let config = QueueConfig {
            size: 8,
            align: 1,
            features,
        };
        let mut queue = Queue::new(&config, &setup.allocator(), &hold).unwrap();
        let _ = publish(&mut queue, &setup, 2);
        assert_eq!(queue.restart(), Err(StillHeld));

        hold.release();
        queue.restart().unwrap();
        hold.hold();
        let mut device = Device::of(&queue, features, &setup);
        let _ = publish(&mut queue, &setup, 1);
        let request = device.pop().unwrap();
        device.finish_batch(&[request], 0);
        assert!(queue.take().unwrap().is_some());
        assert_eq!(queue.free(), 8);
        setup.hold.release();
    }
}
