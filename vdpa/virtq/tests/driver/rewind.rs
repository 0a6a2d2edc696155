//! A queue whose device is reset in the middle of its work and starts afresh: nothing is lost,
//! nothing comes twice.

use crate::common::{Device, Message, Setup};
use proptest::prelude::*;
use virtq::testing::Request;
use virtq::{Broken, DmaBuffer, Pending, Queue, QueueConfig, RewindError, RingFeatures, Used};

const SIZE: u16 = 8;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The driver adds a message of so many segments.
    Add(usize),
    Publish,
    /// The device takes a chain.
    Pop,
    /// The device returns the nth that it has.
    Return(usize),
    /// The driver takes a chain back.
    Take,
    /// The device is reset, and the queue rewound.
    Rewind,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4usize).prop_map(Step::Add),
        3 => Just(Step::Publish),
        4 => Just(Step::Pop),
        3 => (0..8usize).prop_map(Step::Return),
        3 => Just(Step::Take),
        1 => Just(Step::Rewind),
    ];
    prop::collection::vec(step, 0..120)
}

fn features() -> impl Strategy<Value = RingFeatures> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    flags.prop_map(|(packed, event_idx, indirect, in_order)| {
        RingFeatures::NONE
            .with_packed(packed)
            .with_event_idx(event_idx)
            .with_indirect(indirect)
            .with_in_order(in_order && packed)
    })
}

struct World {
    setup: Setup,
    features: RingFeatures,
    queue: Queue<Message>,
    device: Device,
    /// What the device has taken since its last reset.
    taken: Vec<(u64, Request)>,
    /// What the driver has added and the device has not returned, oldest first.
    waiting: Vec<u64>,
    /// How many of these have been published.
    published: usize,
    /// What the device has returned and the driver has not taken back.
    returned: Vec<u64>,
    next: u64,
}

impl World {
    fn new(features: RingFeatures) -> Self {
        let setup = Setup::new();
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features,
        };
        let queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
        Self {
            device: Device::of(&queue, features, &setup),
            setup,
            features,
            queue,
            taken: Vec::new(),
            waiting: Vec::new(),
            published: 0,
            returned: Vec::new(),
            next: 0,
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Add(repeat) => {
                let mut message = self.setup.message(&self.next.to_le_bytes(), 8);
                message.repeat = repeat;
                if self.queue.add(message).is_ok() {
                    self.waiting.push(self.next);
                    self.next += 1;
                }
            }
            Step::Publish => {
                let _ = self.queue.publish();
                self.published = self.waiting.len();
            }
            Step::Pop => {
                if let Some(request) = self.device.pop() {
                    self.taken.push((self.number(&request), request));
                }
            }
            Step::Return(nth) => self.give_back(nth),
            Step::Take => {
                self.take();
            }
            Step::Rewind => self.rewind(),
        }
    }

    fn number(&self, request: &Request) -> u64 {
        let bytes = self.device.read(request);
        u64::from_le_bytes(bytes[..8].try_into().unwrap())
    }

    fn give_back(&mut self, nth: usize) {
        if self.taken.is_empty() {
            return;
        }
        let nth = if self.features.in_order {
            0
        } else {
            nth % self.taken.len()
        };
        let (number, request) = self.taken.remove(nth);
        self.device.write(&request, 0, &number.to_le_bytes());
        self.device.finish_batch(&[request], 8);
        let at = self.waiting.iter().position(|other| *other == number);
        self.waiting.remove(at.expect("the driver waits for it"));
        self.published -= 1;
        self.returned.push(number);
    }

    fn take(&mut self) -> bool {
        assert_eq!(self.queue.has_used(), !self.returned.is_empty());
        let Some(Used { chain, written, .. }) = self.queue.take().unwrap() else {
            assert_eq!(self.returned, []);
            return false;
        };
        let number = |buffer: &DmaBuffer| u64::from_le_bytes(buffer[..8].try_into().unwrap());
        let asked = number(chain.readable.as_ref().unwrap());
        assert_eq!((asked, written), (self.returned.remove(0), 8));
        assert_eq!(number(chain.writable.as_ref().unwrap()), asked);
        true
    }

    fn rewind(&mut self) {
        self.queue.rewind().unwrap();
        self.taken.clear();
        self.restart_device();
        // The new device finds what the old one has not returned, in order, and nothing else.
        let found: Vec<_> = std::iter::from_fn(|| self.device.pop()).collect();
        let found: Vec<_> = found.iter().map(|request| self.number(request)).collect();
        assert_eq!(found, self.waiting[..self.published]);
        // It is reset before it has done anything, and another one takes over.
        self.queue.rewind().unwrap();
        self.restart_device();
    }

    fn restart_device(&mut self) {
        self.device = Device::start(&self.queue, self.features, &self.setup);
    }
}

/// Miri takes a minute for what is a moment otherwise.
fn cases() -> u32 {
    if cfg!(miri) {
        4
    } else {
        ProptestConfig::default().cases
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whenever_a_device_starts_afresh_nothing_is_lost_or_doubled(
        features in features(),
        steps in steps(),
    ) {
        let mut w = World::new(features);
        for step in steps {
            w.perform(step);
        }
        w.perform(Step::Publish);
        while !w.waiting.is_empty() {
            w.perform(Step::Pop);
            w.perform(Step::Return(0));
        }
        while w.take() {}
        prop_assert_eq!(w.queue.free(), SIZE);
        drop(w.queue);
        prop_assert_eq!(w.setup.dma.outstanding(), 0);
    }
}

#[test]
fn what_was_used_before_a_rewind_is_pending_for_whoever_waits() {
    for packed in [false, true] {
        let mut w = World::new(RingFeatures::NONE.with_packed(packed));
        for step in [Step::Add(1), Step::Publish, Step::Pop, Step::Return(0)] {
            w.perform(step);
        }
        w.perform(Step::Rewind);
        assert_eq!(w.queue.enable_interrupts(), Pending::Yes);
        assert!(w.take());
        assert_eq!(w.queue.enable_interrupts(), Pending::No);
    }
}

#[test]
fn the_lies_of_the_old_device_are_found_out() {
    let mut w = World::new(RingFeatures::default());
    for step in [Step::Add(1), Step::Publish] {
        w.perform(step);
    }
    let Device::Split(device) = &mut w.device else {
        panic!("the ring is split");
    };
    device.set_used_index(2);
    let error = RewindError::Broken(Broken::UsedIndex);
    assert_eq!(w.queue.rewind(), Err(error));
    assert_eq!(w.queue.rewind(), Err(error), "for good");
}

#[test]
fn a_split_ring_in_order_is_left_alone() {
    let mut w = World::new(RingFeatures::NONE.with_in_order(true));
    for step in [Step::Add(1), Step::Publish, Step::Pop] {
        w.perform(step);
    }
    assert_eq!(w.queue.rewind(), Err(RewindError::InOrder));
    w.perform(Step::Return(0));
    assert!(w.take());
}
