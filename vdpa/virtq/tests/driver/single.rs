//! Chains of a type that has one segment, as frames are: on a packed ring they go a way of their
//! own.

use std::sync::Arc;

use virtq::testing::{HeapDma, PackedDevice};
use virtq::{
    AddReason, Arena, Broken, Chain, DmaAddr, DmaAllocator, DmaBuffer, Notify, Queue, QueueConfig,
    Readable, RingFeatures, Segment, SharedMemory, Writable,
};

use crate::common::{Device, Setup};

const SIZE: u16 = 5;

/// A chain of up to two segments that has one: a readable one, or one that the device writes.
struct Either {
    buffer: DmaBuffer,
    is_writable: bool,
}

// SAFETY: the only segment is the buffer that the value owns.
unsafe impl Chain for Either {
    const MAX_SEGMENTS: u16 = 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let buffer = (!self.is_writable).then_some(&self.buffer);
        buffer.map(Segment::of).into_iter()
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let buffer = self.is_writable.then_some(&self.buffer);
        buffer.map(Segment::of).into_iter()
    }
}

/// Says that it has one segment at most, and has these.
struct Lying {
    readable: Vec<DmaBuffer>,
    writable: Vec<DmaBuffer>,
}

// SAFETY: the segments are buffers that the value owns. Their number makes the queue refuse them.
unsafe impl Chain for Lying {
    const MAX_SEGMENTS: u16 = 1;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.readable.iter().map(Segment::of)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.writable.iter().map(Segment::of)
    }
}

fn queue<T: Chain>(setup: &Setup, features: RingFeatures) -> Queue<T> {
    let size = if features.packed { SIZE } else { 4 };
    let config = QueueConfig {
        size,
        align: 1,
        features,
    };
    Queue::new(&config, &setup.allocator(), &setup.hold).unwrap()
}

fn both_formats() -> [RingFeatures; 2] {
    [false, true].map(|packed| RingFeatures::NONE.with_packed(packed))
}

fn buffer(setup: &Setup, len: usize) -> DmaBuffer {
    DmaBuffer::new(&setup.allocator(), len).unwrap()
}

/// The short way, against the one that all chains can go: batches of several, laps, ids that are
/// used again, and the device's wish for notifications anywhere in this lap or the other.
fn compare<T: Chain>(
    is_writable: bool,
    chain: impl Fn(DmaBuffer) -> T,
    buffer_of: impl Fn(&T) -> &DmaBuffer,
) {
    for (event_idx, in_order) in [(false, false), (true, false), (false, true), (true, true)] {
        let features = RingFeatures::NONE
            .with_packed(true)
            .with_event_idx(event_idx)
            .with_in_order(in_order);
        let setup = Setup::new();
        let mut plain = queue::<Either>(&setup, features);
        let mut short = queue::<T>(&setup, features);
        let [mut expecting, mut device] = [plain.addresses(), short.addresses()]
            .map(|addresses| PackedDevice::new(&setup.dma, addresses, SIZE, features));
        // Under Miri each takes seconds.
        for round in 0..if cfg!(miri) { 6u16 } else { 120 } {
            for device in [&expecting, &device] {
                if round % 11 == 10 {
                    device.disable_notifications();
                } else {
                    device.set_event((round / 2 % SIZE, round % 2 == 0));
                }
            }
            let batch = 1 + usize::from(round % 4);
            let lens: Vec<_> = (0..batch).map(|n| 16 * (n + 1)).collect();
            for &len in &lens {
                let token = plain.add(Either {
                    buffer: buffer(&setup, len),
                    is_writable,
                });
                let same = short.add(chain(buffer(&setup, len)));
                assert_eq!(same.ok(), token.ok(), "round {round}");
                assert!(device.pop().is_none(), "it has been shown too early");
            }
            assert_eq!(short.free(), plain.free());
            assert_eq!(short.publish(), plain.publish(), "round {round}");
            let taken: Vec<_> = lens
                .iter()
                .map(|_| (expecting.pop().unwrap(), device.pop().unwrap()))
                .collect();
            for ((expected, request), &len) in taken.iter().zip(&lens) {
                assert_eq!(request.head, expected.head);
                assert_eq!(request.descriptors, 1);
                let lens_of = |segments: &[Segment]| -> Vec<_> {
                    segments
                        .iter()
                        .map(|segment| segment.len as usize)
                        .collect()
                };
                let (readable, writable) = if is_writable {
                    (vec![], vec![len])
                } else {
                    (vec![len], vec![])
                };
                assert_eq!(lens_of(&request.readable), readable);
                assert_eq!(lens_of(&request.writable), writable);
            }
            // In order the device may name the last one alone.
            let returns = if in_order { 1 } else { batch };
            for (expected, request) in &taken[batch - returns..] {
                let written = request.writable.iter().map(|segment| segment.len).sum();
                let descriptors = (batch / returns).try_into().unwrap();
                expecting.complete(expected.head, written, descriptors);
                device.complete(request.head, written, descriptors);
            }
            for &len in &lens {
                let (expected, used) = (plain.take().unwrap(), short.take().unwrap());
                let (expected, used) = (expected.unwrap(), used.unwrap());
                assert_eq!(buffer_of(&used.chain).len(), len, "round {round}");
                assert_eq!(
                    (used.token, used.written),
                    (expected.token, expected.written)
                );
            }
            assert_eq!(short.state(), plain.state());
        }
        assert_eq!(short.statistics().snapshot(), plain.statistics().snapshot());
    }
}

#[test]
fn a_chain_of_one_segment_is_to_the_device_what_any_chain_with_that_segment_is() {
    compare(true, Writable, |chain| &chain.0);
    let readable = |buffer: DmaBuffer| Readable {
        len: u32::try_from(buffer.len()).unwrap(),
        buffer,
    };
    compare(false, readable, |chain| &chain.buffer);
}

#[test]
fn the_device_gets_no_more_than_the_part_that_is_to_be_read() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let mut device = Device::of(&queue, features, &setup);
        for (len, shown) in [(10, 10), (64, 64), (65, 64)] {
            let buffer = buffer(&setup, 64);
            queue.add(Readable { buffer, len }).unwrap();
            let _ = queue.publish();
            let request = device.pop().unwrap();
            assert_eq!(request.readable[0].len, shown);
        }
    }
}

#[test]
fn a_chain_that_cannot_be_added_is_refused_and_given_back() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let mut device = Device::of(&queue, features, &setup);
        let memory = SharedMemory::new(&(HeapDma::new() as Arc<dyn DmaAllocator>), 4096);
        let elsewhere: Arc<dyn DmaAllocator> = Arena::new(memory.unwrap(), DmaAddr(0)).unwrap();
        let foreign = DmaBuffer::new(&elsewhere, 512).unwrap();
        for (buffer, len, reason) in [
            (foreign, 64, AddReason::Foreign),
            (buffer(&setup, 64), 0, AddReason::Empty),
        ] {
            let addr = buffer.addr();
            let refused = queue.add(Readable { buffer, len }).unwrap_err();
            assert_eq!(
                (refused.reason, refused.chain.buffer.addr()),
                (reason, addr)
            );
        }
        assert_eq!(queue.free(), queue.size());
        let chain = || Readable {
            buffer: buffer(&setup, 64),
            len: 64,
        };
        for _ in 0..queue.size() {
            queue.add(chain()).unwrap();
        }
        assert_eq!(queue.add(chain()).unwrap_err().reason, AddReason::Full);
        assert_eq!(queue.publish(), Notify::Needed);
        let shown = std::iter::from_fn(|| device.pop()).count();
        assert_eq!(shown, usize::from(queue.size()));
    }
}

#[test]
fn a_chain_with_more_segments_than_its_type_says_is_too_long() {
    for features in both_formats() {
        for (readable, writable) in [(2, 0), (1, 1), (0, 2), (2, 1)] {
            let setup = Setup::new();
            let mut queue = queue(&setup, features);
            let buffers = |count| (0..count).map(|_| buffer(&setup, 64)).collect();
            let chain = Lying {
                readable: buffers(readable),
                writable: buffers(writable),
            };
            assert_eq!(queue.add(chain).unwrap_err().reason, AddReason::TooLong);
            let none = Lying {
                readable: buffers(0),
                writable: buffers(0),
            };
            assert_eq!(queue.add(none).unwrap_err().reason, AddReason::Empty);
        }
    }
}

#[test]
fn a_device_that_claims_to_have_written_more_than_it_was_given_breaks_the_queue() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let mut device = Device::of(&queue, features, &setup);
        queue.add(Writable(buffer(&setup, 64))).unwrap();
        let _ = queue.publish();
        let request = device.pop().unwrap();
        device.finish_batch(std::slice::from_ref(&request), 65);
        let broken = queue.take().unwrap_err();
        assert_eq!(broken, Broken::BadLength);
        let chain = Writable(buffer(&setup, 64));
        let refused = queue.add(chain).unwrap_err();
        assert_eq!(refused.reason, AddReason::Broken(broken));
    }
}

#[test]
fn a_rewound_queue_shows_its_chains_in_the_order_in_which_they_were_added() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let mut device = Device::of(&queue, features, &setup);
        let add = |queue: &mut Queue<Readable>, len| {
            let buffer = buffer(&setup, 64);
            queue.add(Readable { buffer, len }).unwrap();
            let _ = queue.publish();
        };
        for len in 1..=3 {
            add(&mut queue, len);
        }
        let first = device.pop().unwrap();
        device.finish_batch(std::slice::from_ref(&first), 0);
        queue.take().unwrap().unwrap();
        // By the id of the first, which now is the youngest.
        add(&mut queue, 4);
        queue.rewind().unwrap();
        let mut device = Device::start(&queue, features, &setup);
        let shown = std::iter::from_fn(|| device.pop());
        let lens: Vec<_> = shown.map(|request| request.readable[0].len).collect();
        assert_eq!(lens, [2, 3, 4]);
    }
}
