//! The used index of a queue, seen from outside.

use crate::common::{Case, Setup};
use virtq::{Queue, QueueConfig, RingFeatures, RingState};

#[test]
fn a_watch_sees_the_device_get_on_before_the_queue_does() {
    let mut case = Case::new(4, RingFeatures::default());
    let watch = case.queue.used_watch().unwrap();
    for _ in 0..2 {
        case.queue.add(case.setup.message(b"x", 0)).unwrap();
    }
    let _ = case.queue.publish();
    assert_eq!(watch.index(), 0);
    let request = case.device.pop().unwrap();
    case.device.finish(&request, 0);
    assert_eq!((watch.index(), case.queue.in_flight()), (1, 2));
    let request = case.device.pop().unwrap();
    case.device.finish(&request, 0);
    assert_eq!((watch.index(), case.queue.in_flight()), (2, 2));
}

#[test]
fn a_watch_starts_where_the_queue_does_and_keeps_its_ring() {
    let setup = Setup::new();
    let config = QueueConfig {
        size: 4,
        align: 1,
        features: RingFeatures::default(),
    };
    let state = RingState::Split { index: 0xfffe };
    let dma = setup.allocator();
    let queue = Queue::<crate::common::Message>::resume(&config, state, &dma, &setup.hold).unwrap();
    let watch = queue.used_watch().unwrap();
    drop(queue);
    assert_eq!(watch.clone().index(), 0xfffe);
    assert!(setup.dma.outstanding() > 0);
    drop(watch);
    assert_eq!(setup.dma.outstanding(), 0);
}

#[test]
fn a_packed_ring_has_no_index_to_watch() {
    let features = RingFeatures::NONE.with_packed(true);
    let setup = Setup::new();
    let config = QueueConfig {
        size: 4,
        align: 1,
        features,
    };
    let queue =
        Queue::<crate::common::Message>::new(&config, &setup.allocator(), &setup.hold).unwrap();
    assert!(queue.used_watch().is_none());
}
