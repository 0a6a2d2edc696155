//! The driver side of a split queue against a device side that lies, or is reset under it.

use crate::common::{Case, Device, Message, Setup, round_trip};
use virtq::{AddReason, Broken, Queue, QueueConfig, RingFeatures};

const PLAIN: RingFeatures = RingFeatures::NONE;
const BOTH: RingFeatures = PLAIN.with_event_idx(true).with_indirect(true);

#[test]
fn a_used_index_beyond_what_was_given_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(8, PLAIN);
    queue.add(setup.message(b"x", 0)).unwrap();
    let _ = queue.publish();
    device.set_used_index(2);
    assert_broken(queue, &setup, Broken::UsedIndex);
}

#[test]
fn a_used_index_that_goes_back_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(8, PLAIN);
    round_trip(&mut queue, &mut device, &setup);
    device.set_used_index(0);
    assert_broken(queue, &setup, Broken::UsedIndex);
}

#[test]
fn an_id_outside_the_ring_breaks_the_queue() {
    for id in [8, 0x1_0000, u32::MAX] {
        let Case {
            mut queue,
            mut device,
            setup,
        } = Case::new(8, PLAIN);
        queue.add(setup.message(b"x", 0)).unwrap();
        let _ = queue.publish();
        device.complete(id, 0);
        assert_broken(queue, &setup, Broken::BadId);
    }
}

#[test]
fn a_chain_returned_twice_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(8, PLAIN);
    queue.add(setup.message(b"one", 0)).unwrap();
    queue.add(setup.message(b"two", 0)).unwrap();
    let _ = queue.publish();
    let head = device.pop().unwrap().head;
    device.complete(head.into(), 0);
    device.complete(head.into(), 0);
    assert!(queue.take().unwrap().is_some());
    assert_broken(queue, &setup, Broken::NotInFlight);
}

#[test]
fn the_middle_of_a_chain_is_no_chain() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(8, PLAIN);
    let head = queue.add(setup.message(b"two descriptors", 4)).unwrap();
    let _ = queue.publish();
    device.complete(u32::try_from(head.index()).unwrap() + 1, 0);
    assert_broken(queue, &setup, Broken::NotInFlight);
}

#[test]
fn a_chain_returned_before_it_was_published_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(8, PLAIN);
    queue.add(setup.message(b"published", 0)).unwrap();
    let _ = queue.publish();
    let hidden = queue.add(setup.message(b"not yet", 0)).unwrap();
    device.complete(u32::try_from(hidden.index()).unwrap(), 0);
    assert_broken(queue, &setup, Broken::NotInFlight);
}

#[test]
fn more_written_than_lent_breaks_the_queue() {
    let Case {
        mut queue,
        mut device,
        setup,
    } = Case::new(8, PLAIN);
    queue.add(setup.message(b"x", 16)).unwrap();
    let _ = queue.publish();
    let head = device.pop().unwrap().head;
    device.complete(head.into(), 17);
    assert_broken(queue, &setup, Broken::BadLength);
}

#[test]
#[cfg_attr(miri, ignore = "leaks on purpose")]
fn memory_that_the_device_may_touch_is_never_freed() {
    let Case {
        mut queue, setup, ..
    } = Case::new(8, PLAIN);
    queue.add(setup.message(b"in flight", 0)).unwrap();
    let _ = queue.publish();
    setup.hold.hold();
    let before = setup.dma.outstanding();
    assert!(queue.reclaim().is_none());
    drop(queue);
    assert_eq!(
        setup.dma.outstanding(),
        before,
        "the ring and the chain are leaked on purpose"
    );
}

#[test]
fn a_device_that_was_reset_gives_everything_back() {
    let Case {
        mut queue, setup, ..
    } = Case::new(8, BOTH);
    setup.hold.hold();
    queue.add(setup.message(b"in flight", 4)).unwrap();
    let _ = queue.publish();
    setup.hold.release();
    assert_eq!(
        &queue.reclaim().unwrap().readable.unwrap()[..],
        b"in flight"
    );
    assert!(queue.reclaim().is_none());
    drop(queue);
    assert_eq!(setup.dma.outstanding(), 0);
}

#[test]
fn a_batch_that_includes_a_reclaimed_chain_breaks_the_queue() {
    for packed in [false, true] {
        let setup = Setup::new();
        let features = PLAIN.with_packed(packed).with_in_order(true);
        let config = QueueConfig {
            size: 8,
            align: 1,
            features,
        };
        let mut queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
        let mut device = Device::of(&queue, features, &setup);
        for text in [b"first", b"other"] {
            queue.add(setup.message(text, 0)).unwrap();
        }
        let _ = queue.publish();
        let batch = [device.pop().unwrap(), device.pop().unwrap()];
        device.finish_batch(&batch, 0);
        assert!(queue.reclaim().is_some(), "the hold was never raised");
        assert_broken(queue, &setup, Broken::NotInFlight);
    }
}

fn assert_broken(mut queue: Queue<Message>, setup: &Setup, how: Broken) {
    assert_eq!(queue.take().unwrap_err(), how);
    assert_eq!(
        queue.take().unwrap_err(),
        how,
        "a broken queue stays broken"
    );
    assert_eq!(queue.broken(), Some(how));
    let refused = queue.add(setup.message(b"x", 0)).unwrap_err();
    assert_eq!(refused.reason, AddReason::Broken(how));
    drop(refused);
    drop(queue);
    assert_eq!(
        setup.dma.outstanding(),
        0,
        "nothing is lost when the device was reset"
    );
}
