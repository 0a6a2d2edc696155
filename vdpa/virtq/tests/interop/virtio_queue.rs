//! Our driver side against a stranger: the device side of `virtio-queue`, which VMMs use.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::sync::Arc;

use crate::guest_ram::GuestRam;
use crate::scatter::Scatter;
use crate::text::text;
use proptest::prelude::*;
use virtio_queue::{DescriptorChain, QueueT};
use virtq::{
    AddReason, DeviceHold, DmaAllocator, Notify, Pending, Queue, QueueConfig, RingFeatures,
    RingState, Token,
};
use vm_memory::GuestMemoryMmap;

#[derive(Clone, Debug)]
enum Step {
    /// The driver adds a chain with segments of these lengths.
    Add {
        readable: Vec<usize>,
        writable: Vec<usize>,
    },
    /// The driver publishes what was added.
    Publish,
    /// The device takes up to so many chains.
    Pop { count: usize },
    /// The device completes the chain at this place in its hands, and writes this share of 255 of
    /// what it may.
    Complete { which: usize, share: u8 },
    /// The device asks itself whether to interrupt.
    Interrupt,
    /// The driver takes one chain back.
    Take,
    /// The driver asks for interrupts, or for none.
    DriverWaits(bool),
    /// The device asks for notifications, or for none.
    DeviceWaits(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let lens = |most| prop::collection::vec(1usize..64, 0..=most);
    prop_oneof![
        6 => (lens(4), lens(4)).prop_map(|(readable, writable)| Step::Add { readable, writable }),
        4 => Just(Step::Publish),
        4 => (1usize..5).prop_map(|count| Step::Pop { count }),
        5 => (any::<usize>(), any::<u8>()).prop_map(|(which, share)| Step::Complete { which, share }),
        3 => Just(Step::Interrupt),
        6 => Just(Step::Take),
        1 => any::<bool>().prop_map(Step::DriverWaits),
        1 => any::<bool>().prop_map(Step::DeviceWaits),
    ]
}

/// A driver, a device, and what each must know. Indices here are counted without wrapping, from
/// where the queue starts, so that no arithmetic of either side is repeated.
struct Both {
    memory: Arc<GuestMemoryMmap>,
    dma: Arc<dyn DmaAllocator>,
    event_idx: bool,
    driver: Queue<Scatter>,
    device: virtio_queue::Queue,
    /// Serial numbers of the chains, by where they are.
    added: VecDeque<u64>,
    published: VecDeque<u64>,
    with_device: Vec<(u64, DescriptorChain<Arc<GuestMemoryMmap>>)>,
    completed: VecDeque<(u64, u32)>,
    tokens: BTreeMap<u64, Token>,
    next_serial: u64,
    /// How many chains were published, popped, completed and taken.
    counts: Counts,
    /// The chain whose publication the device wants to hear of.
    avail_event: Option<u64>,
    interrupts: Interrupts,
    /// How many were completed when the device last asked itself whether to interrupt.
    judged: u64,
}

/// What the driver has said of interrupts.
#[derive(Clone, Copy)]
enum Interrupts {
    /// One for the completion of this chain.
    At(u64),
    /// None for the chains from this one on.
    NoneFrom(u64),
}

#[derive(Default)]
struct Counts {
    published: u64,
    popped: u64,
    completed: u64,
    taken: u64,
}

impl Both {
    fn new(size: u16, event_idx: bool, indirect: bool, start: u16) -> Self {
        let ram = Arc::new(GuestRam::new(1 << 20));
        let memory = ram.memory();
        let dma = ram as Arc<dyn DmaAllocator>;
        let features = RingFeatures::NONE
            .with_event_idx(event_idx)
            .with_indirect(indirect);
        let config = QueueConfig {
            size,
            align: 1,
            features,
        };
        let state = RingState::Split { index: start };
        let driver = Queue::resume(&config, state, &dma, &DeviceHold::new()).expect("a queue");
        let device = virtio_queue_at(&driver, event_idx, start);
        assert!(device.is_valid(&*memory));
        Self {
            memory,
            dma,
            event_idx,
            driver,
            device,
            added: VecDeque::new(),
            published: VecDeque::new(),
            with_device: Vec::new(),
            completed: VecDeque::new(),
            tokens: BTreeMap::new(),
            next_serial: 0,
            counts: Counts::default(),
            avail_event: Some(0),
            interrupts: Interrupts::At(0),
            judged: 0,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Add { readable, writable } => self.add(readable, writable),
            Step::Publish => self.publish(),
            Step::Pop { count } => (0..*count).for_each(|_| self.pop()),
            Step::Complete { which, share } => self.complete(*which, *share),
            Step::Interrupt => self.judge_interrupt(),
            Step::Take => self.take(),
            Step::DriverWaits(yes) => self.driver_waits(*yes),
            Step::DeviceWaits(yes) => self.device_waits(*yes),
        }
    }

    fn add(&mut self, readable: &[usize], writable: &[usize]) {
        let serial = self.next_serial;
        let chain = Scatter::new(&self.dma, serial, readable, writable);
        match self.driver.add(chain) {
            Ok(token) => {
                self.next_serial += 1;
                assert!(self.tokens.values().all(|&other| other != token));
                self.tokens.insert(serial, token);
                self.added.push_back(serial);
            }
            Err(error) => match error.reason {
                AddReason::Empty => assert!(readable.is_empty() && writable.is_empty()),
                AddReason::TooLong => {
                    assert!(readable.len() + writable.len() > self.driver.size().into());
                }
                AddReason::Full => assert!(self.driver.free() < 8),
                AddReason::Foreign => panic!("all buffers are the queue's own"),
                AddReason::Broken(broken) => panic!("an honest device broke the queue: {broken}"),
            },
        }
    }

    fn publish(&mut self) {
        let old = self.counts.published;
        self.counts.published += self.added.len() as u64;
        self.published.append(&mut self.added);
        let needed = match self.avail_event {
            _ if old == self.counts.published => Notify::NotNeeded,
            Some(event) if self.event_idx && !(old..self.counts.published).contains(&event) => {
                Notify::NotNeeded
            }
            Some(_) => Notify::Needed,
            None => Notify::NotNeeded,
        };
        assert_eq!(self.driver.publish(), needed);
    }

    fn pop(&mut self) {
        let chain = self.device.pop_descriptor_chain(Arc::clone(&self.memory));
        assert_eq!(chain.is_some(), !self.published.is_empty());
        if let Some(chain) = chain {
            let serial = self.published.pop_front().expect("compared above");
            let mut read = Vec::new();
            let mut reader = chain
                .clone()
                .reader::<()>(&*self.memory)
                .expect("a good chain");
            reader.read_to_end(&mut read).expect("readable");
            assert!(
                read.iter().copied().eq(text(serial).take(read.len())),
                "the text of {serial}"
            );
            self.with_device.push((serial, chain));
            self.counts.popped += 1;
        }
    }

    fn complete(&mut self, which: usize, share: u8) {
        if self.with_device.is_empty() {
            return;
        }
        let (serial, chain) = self.with_device.swap_remove(which % self.with_device.len());
        let head = chain.head_index();
        let mut writer = chain.writer::<()>(&*self.memory).expect("a good chain");
        let len = writer.available_bytes() * usize::from(share) / 255;
        let reply: Vec<u8> = text(!serial).take(len).collect();
        writer.write_all(&reply).expect("writable");
        let len = u32::try_from(len).expect("short");
        self.device
            .add_used(&*self.memory, head, len)
            .expect("memory");
        self.completed.push_back((serial, len));
        self.counts.completed += 1;
    }

    fn judge_interrupt(&mut self) {
        let wanted = self
            .device
            .needs_notification(&*self.memory)
            .expect("memory");
        let completed = self.judged..self.counts.completed;
        self.judged = self.counts.completed;
        match self.interrupts {
            // `virtio-queue` does not look at VIRTQ_AVAIL_F_NO_INTERRUPT.
            _ if !self.event_idx => assert!(wanted),
            Interrupts::At(chain) => assert_eq!(wanted, completed.contains(&chain)),
            Interrupts::NoneFrom(chain) => assert!(!wanted || completed.start < chain),
        }
    }

    fn take(&mut self) {
        let used = self.driver.take().expect("an honest device");
        let Some((serial, written)) = self.completed.pop_front() else {
            assert!(used.is_none());
            return;
        };
        let used = used.expect("one was completed");
        assert_eq!(self.tokens.remove(&serial), Some(used.token));
        assert_eq!(used.written, written);
        let len = usize::try_from(written).expect("short");
        assert!(
            used.chain
                .written(len)
                .into_iter()
                .eq(text(!serial).take(len))
        );
        self.counts.taken += 1;
    }

    fn driver_waits(&mut self, yes: bool) {
        if yes {
            let pending = self.driver.enable_interrupts();
            self.interrupts = Interrupts::At(self.counts.taken);
            assert_eq!(pending == Pending::Yes, !self.completed.is_empty());
        } else {
            self.driver.disable_interrupts();
            self.interrupts = Interrupts::NoneFrom(self.counts.taken);
        }
    }

    fn device_waits(&mut self, yes: bool) {
        if yes {
            let pending = self
                .device
                .enable_notification(&*self.memory)
                .expect("memory");
            self.avail_event = Some(self.counts.popped);
            assert_eq!(pending, !self.published.is_empty());
        } else {
            self.device
                .disable_notification(&*self.memory)
                .expect("memory");
            if !self.event_idx {
                self.avail_event = None;
            }
        }
    }

    /// Brings everything home.
    fn settle(&mut self) {
        self.publish();
        while !self.published.is_empty() {
            self.pop();
        }
        while !self.with_device.is_empty() {
            self.complete(0, 255);
        }
        self.judge_interrupt();
        while !self.completed.is_empty() {
            self.take();
        }
        self.take();
        assert!(self.tokens.is_empty());
        assert_eq!(
            (self.driver.free(), self.driver.in_flight()),
            (self.driver.size(), 0)
        );
        let state = RingState::Split {
            index: self.device.next_used(),
        };
        assert_eq!(self.driver.state(), Some(state));
    }
}

/// The device side of a driver's ring.
fn virtio_queue_at(driver: &Queue<Scatter>, event_idx: bool, index: u16) -> virtio_queue::Queue {
    let addresses = driver.addresses();
    let halves = |addr: u64| (Some(addr as u32), Some((addr >> 32) as u32));
    let mut device = virtio_queue::Queue::new(driver.size()).expect("a size that both know");
    let (low, high) = halves(addresses.descriptor.0);
    device.set_desc_table_address(low, high);
    let (low, high) = halves(addresses.driver.0);
    device.set_avail_ring_address(low, high);
    let (low, high) = halves(addresses.device.0);
    device.set_used_ring_address(low, high);
    device.set_next_avail(index);
    device.set_next_used(index);
    device.set_event_idx(event_idx);
    device.set_ready(true);
    device
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_traffic_arrives_whole_and_once(
        size_log in 0u32..8,
        event_idx: bool,
        indirect: bool,
        // Half of the queues pass the end of the indices.
        start in prop_oneof![any::<u16>(), 65400u16..=65535],
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let mut both = Both::new(1 << size_log, event_idx, indirect, start);
        for step in &steps {
            both.apply(step);
        }
        both.settle();
    }
}

/// Batches of all sizes, out of order, for more than two laps of the 16-bit indices.
fn run_for_two_laps(event_idx: bool, indirect: bool) {
    let mut both = Both::new(32, event_idx, indirect, 0);
    let mut round = 0;
    while both.counts.taken < 2 * 65536 + 1000 {
        for place in 0..=round % 7 {
            both.add(&[3 + place, 5], &[2; 2][..place % 3]);
        }
        both.device_waits(round % 5 != 0);
        both.publish();
        while !both.published.is_empty() {
            both.pop();
        }
        both.driver_waits(round % 4 != 0);
        while !both.with_device.is_empty() {
            both.complete(round, 255);
        }
        both.judge_interrupt();
        while !both.completed.is_empty() {
            both.take();
        }
        round += 1;
    }
    both.settle();
}

#[test]
fn two_laps_of_the_indices_with_flags() {
    run_for_two_laps(false, false);
}

#[test]
fn two_laps_of_the_indices_with_event_idx() {
    run_for_two_laps(true, false);
}

#[test]
fn two_laps_of_the_indices_with_indirect_tables() {
    run_for_two_laps(true, true);
}
