//! When a driver must notify a device that has said at which available index it wants to be
//! (VIRTIO 1.2, 2.7.10.1): the window test of our driver side, and the comparison that
//! `virtio-drivers` 0.13 has in its place, which misses notifications and sends needless ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bounce::Bounce;
use crate::fake_transport::FakeTransport;
use proptest::prelude::*;
use virtio_drivers::queue::VirtQueue;
use virtq::testing::{DeviceRing, HeapDma};
use virtq::{
    DeviceHold, DmaAllocator, DmaBuffer, Notify, Queue, QueueConfig, Readable, RingAddresses,
    RingFeatures, RingState,
};
use vm_memory::{Bytes, GuestAddress};

const SIZE: u16 = 64;

/// The specification, one chain at a time: the device is to be notified if the chain that it waits
/// for is among those that become available.
fn specified(event: u16, old: u16, chains: u16) -> bool {
    (0..chains).any(|place| old.wrapping_add(place) == event)
}

/// What `virtio-drivers` 0.13 computes in `VirtQueue::should_notify`.
fn virtio_drivers_rule(event: u16, new: u16) -> bool {
    new >= event.wrapping_add(1)
}

/// What our driver side says to each of these batches, the device having asked for `event` before.
fn ours(event: u16, start: u16, batches: &[u16]) -> Vec<bool> {
    let heap = HeapDma::new();
    let dma = Arc::clone(&heap) as Arc<dyn DmaAllocator>;
    let features = RingFeatures::NONE.with_event_idx(true);
    let config = QueueConfig {
        size: SIZE,
        align: 1,
        features,
    };
    let state = RingState::Split { index: start };
    let mut queue = Queue::resume(&config, state, &dma, &DeviceHold::new()).expect("a queue");
    let device = DeviceRing::at(&heap, queue.addresses(), SIZE, features, start);
    device.set_avail_event(event);
    let publish = |&chains: &u16| {
        for _ in 0..chains {
            let buffer = DmaBuffer::new(&dma, 1).expect("memory");
            queue.add(Readable { buffer, len: 1 }).expect("room");
        }
        queue.publish() == Notify::Needed
    };
    batches.iter().map(publish).collect()
}

/// The real driver side of `virtio-drivers`, and a device that completes whatever is asked of it.
struct Theirs {
    queue: VirtQueue<Bounce, { SIZE as usize }>,
    addresses: RingAddresses,
    index: u16,
}

impl Theirs {
    fn new() -> Self {
        let mut transport = FakeTransport::default();
        let queue = VirtQueue::new(&mut transport, 0, false, true).expect("a queue");
        let addresses = transport
            .addresses
            .expect("the driver has set the queue up");
        Self {
            queue,
            addresses,
            index: 0,
        }
    }

    /// Makes one chain available and says whether the device is to be notified.
    fn add(&mut self) -> bool {
        // SAFETY: the bytes are never freed.
        unsafe { self.queue.add(&[b"x"], &mut []) }.expect("room");
        self.index = self.index.wrapping_add(1);
        self.queue.should_notify()
    }

    /// As a device uses the chain that was added last.
    fn complete(&mut self) {
        let memory = crate::bounce::memory();
        let used = GuestAddress(self.addresses.device.0);
        let place = u64::from(self.index.wrapping_sub(1) % SIZE);
        let avail = self.addresses.driver.0 + 4 + 2 * place;
        let head: u16 = memory.read_obj(GuestAddress(avail)).expect("memory");
        let entry = GuestAddress(used.0 + 4 + 8 * place);
        memory.write_obj(u32::from(head), entry).expect("memory");
        memory
            .store(self.index, GuestAddress(used.0 + 2), Ordering::Release)
            .expect("memory");
        // SAFETY: these are the buffers that were added.
        unsafe { self.queue.pop_used(head, &[b"x"], &mut []) }.expect("just used");
    }

    /// Brings the queue to an index.
    fn forward(&mut self, index: u16) {
        while self.index != index {
            self.add();
            self.complete();
        }
    }

    fn set_avail_event(&self, event: u16) {
        let addr = self.addresses.device.0 + 4 + 8 * u64::from(SIZE);
        crate::bounce::memory()
            .write_obj(event, GuestAddress(addr))
            .expect("memory");
    }
}

#[test]
fn a_batch_across_the_wrap_notifies_where_virtio_drivers_does_not() {
    let (event, start) = (65534, 65534);
    assert!(specified(event, start, 3));
    assert_eq!(ours(event, start, &[3]), [true]);
    assert!(!virtio_drivers_rule(event, start.wrapping_add(3)));

    let mut theirs = Theirs::new();
    theirs.forward(start);
    theirs.set_avail_event(event);
    theirs.add();
    theirs.add();
    assert!(
        !theirs.add(),
        "virtio-drivers notifies by now: update this test and its rule"
    );
}

#[test]
fn one_event_is_one_notification_where_virtio_drivers_sends_four() {
    let (event, start) = (0, 0);
    assert_eq!(ours(event, start, &[1; 4]), [true, false, false, false]);
    assert_eq!(
        [1, 2, 3, 4].map(|new| virtio_drivers_rule(event, new)),
        [true; 4]
    );

    let mut theirs = Theirs::new();
    theirs.set_avail_event(event);
    assert_eq!([(); 4].map(|()| theirs.add()), [true; 4]);
}

#[test]
fn the_rule_restated_here_is_that_of_virtio_drivers() {
    let mut theirs = Theirs::new();
    for step in 0..3 * 65536u32 {
        let event = theirs.index.wrapping_sub((step % 7) as u16).wrapping_add(3);
        theirs.set_avail_event(event);
        let notifies = theirs.add();
        assert_eq!(
            notifies,
            virtio_drivers_rule(event, theirs.index),
            "event {event}"
        );
        theirs.complete();
    }
}

#[test]
fn around_the_wrap_ours_agrees_with_the_specification_and_theirs_often_not() {
    let (mut missed, mut needless) = (0, 0);
    for (start, chains) in (65528u16..=65535).flat_map(|start| (1..=16).map(move |n| (start, n))) {
        for offset in 0..40 {
            let event = start.wrapping_sub(12).wrapping_add(offset);
            let expected = specified(event, start, chains);
            assert_eq!(
                ours(event, start, &[chains]),
                [expected],
                "{event} {start} {chains}"
            );
            let theirs = virtio_drivers_rule(event, start.wrapping_add(chains));
            missed += u32::from(expected && !theirs);
            needless += u32::from(theirs && !expected);
        }
    }
    assert!(
        missed > 0 && needless > 0,
        "{missed} missed, {needless} needless"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ours_is_the_specification_for_any_indices(
        start: u16,
        chains in 1..=SIZE,
        ahead in prop_oneof![any::<u16>(), 0u16..80],
    ) {
        let event = start.wrapping_add(ahead);
        prop_assert_eq!(ours(event, start, &[chains]), [specified(event, start, chains)]);
    }
}
