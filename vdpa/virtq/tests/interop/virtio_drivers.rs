//! Our device side against a stranger: the driver side of `virtio-drivers`, which kernels use.

use std::collections::VecDeque;
use std::ptr::NonNull;

use crate::bounce::Bounce;
use crate::fake_transport::FakeTransport;
use crate::text::text;
use proptest::prelude::*;
use virtio_drivers::Error;
use virtio_drivers::queue::VirtQueue;
use virtq::device::{Chain, DeviceConfig, DeviceQueue, Direct, Region};
use virtq::{DmaAddr, Pending, RingFeatures, RingState};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

const SIZE: u16 = 16;

#[derive(Clone, Debug)]
enum Step {
    /// The driver makes a chain with segments of these lengths available.
    Add {
        readable: Vec<usize>,
        writable: Vec<usize>,
    },
    /// The device takes up to so many chains.
    Pop { count: usize },
    /// The device completes the chain at this place in its hands, and writes this share of 255 of
    /// what it may.
    Complete { which: usize, share: u8 },
    /// The device shows the driver what it has completed, and asks itself whether to interrupt.
    Notify,
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
        4 => (1usize..5).prop_map(|count| Step::Pop { count }),
        5 => (any::<usize>(), any::<u8>()).prop_map(|(which, share)| Step::Complete { which, share }),
        3 => Just(Step::Notify),
        6 => Just(Step::Take),
        1 => any::<bool>().prop_map(Step::DriverWaits),
        1 => any::<bool>().prop_map(Step::DeviceWaits),
    ]
}

/// A chain of the driver: `virtio-drivers` leaves the buffers to its caller.
struct Lent {
    serial: u64,
    token: u16,
    readable: Vec<Vec<u8>>,
    writable: Vec<Vec<u8>>,
}

/// A driver, a device, and what each must know. Indices here are counted without wrapping, so that
/// no arithmetic of either side is repeated.
struct Both {
    event_idx: bool,
    driver: VirtQueue<Bounce, { SIZE as usize }>,
    device: DeviceQueue<Direct>,
    /// Chains that the driver has not taken back.
    lent: Vec<Lent>,
    /// Serial numbers of the chains, by where they are.
    available: VecDeque<u64>,
    with_device: Vec<(u64, Chain)>,
    completed: VecDeque<(u64, u32)>,
    published: VecDeque<(u64, u32)>,
    counts: Counts,
    /// Whether the driver has asked for no interrupts by its flag.
    driver_waits: bool,
    device_waits: bool,
    /// How many were published when the device last asked itself whether to interrupt.
    judged: u64,
}

#[derive(Default)]
struct Counts {
    added: u64,
    published: u64,
    taken: u64,
}

impl Both {
    fn new(event_idx: bool, indirect: bool) -> Self {
        let mut transport = FakeTransport::default();
        let driver = VirtQueue::new(&mut transport, 0, indirect, event_idx).expect("a queue");
        let features = RingFeatures::NONE
            .with_event_idx(event_idx)
            .with_indirect(indirect);
        let config = DeviceConfig {
            size: SIZE,
            features,
            addresses: transport
                .addresses
                .expect("the driver has set the queue up"),
            state: RingState::start(features),
            chain_max: 8,
            in_flight_max: SIZE,
        };
        Self {
            event_idx,
            driver,
            device: DeviceQueue::new(&config, direct()).expect("a good ring"),
            lent: Vec::new(),
            available: VecDeque::new(),
            with_device: Vec::new(),
            completed: VecDeque::new(),
            published: VecDeque::new(),
            counts: Counts::default(),
            driver_waits: true,
            device_waits: true,
            judged: 0,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Add { readable, writable } => self.add(readable, writable),
            Step::Pop { count } => (0..*count).for_each(|_| self.pop()),
            Step::Complete { which, share } => self.complete(*which, *share),
            Step::Notify => self.notify(),
            Step::Take => self.take(),
            Step::DriverWaits(yes) => self.driver_waits(*yes),
            Step::DeviceWaits(yes) => self.device_waits(*yes),
        }
    }

    fn add(&mut self, readable: &[usize], writable: &[usize]) {
        let serial = self.counts.added;
        let mut text = text(serial);
        let fill = |&len: &usize| text.by_ref().take(len).collect();
        let readable: Vec<Vec<u8>> = readable.iter().map(fill).collect();
        let writable: Vec<Vec<u8>> = writable.iter().map(|&len| vec![0; len]).collect();
        let mut lent = Lent {
            serial,
            token: 0,
            readable,
            writable,
        };
        // SAFETY: the vectors' memory stays where it is until `take`.
        let token = lent.with_slices(|inputs, outputs| unsafe { self.driver.add(inputs, outputs) });
        match token {
            Ok(token) => lent.token = token,
            Err(Error::InvalidParam) => {
                assert!(lent.readable.is_empty() && lent.writable.is_empty());
                return;
            }
            Err(error) => {
                let segments = lent.readable.len() + lent.writable.len();
                assert!(error == Error::QueueFull && self.driver.available_desc() < segments);
                return;
            }
        }
        self.lent.push(lent);
        self.available.push_back(serial);
        self.counts.added += 1;
        if !self.event_idx {
            assert_eq!(self.driver.should_notify(), self.device_waits);
        }
    }

    fn pop(&mut self) {
        let chain = self.device.pop().expect("an honest driver");
        assert_eq!(chain.is_some(), !self.available.is_empty());
        let Some(chain) = chain else {
            return;
        };
        let serial = self.available.pop_front().expect("compared above");
        let lent = self
            .lent
            .iter()
            .find(|lent| lent.serial == serial)
            .expect("in flight");
        let expected = lent.readable.concat();
        let mut read = vec![0; expected.len() + 1];
        assert_eq!(self.device.pull(&chain, 0, &mut read), Ok(expected.len()));
        assert_eq!(read[..expected.len()], expected);
        let room: usize = lent.writable.iter().map(Vec::len).sum();
        assert_eq!(chain.writable_len(), room as u64);
        self.with_device.push((serial, chain));
    }

    fn complete(&mut self, which: usize, share: u8) {
        if self.with_device.is_empty() {
            return;
        }
        let (serial, chain) = self.with_device.swap_remove(which % self.with_device.len());
        let room = usize::try_from(chain.writable_len()).expect("short");
        let reply: Vec<u8> = text(!serial)
            .take(room * usize::from(share) / 255)
            .collect();
        assert_eq!(self.device.push(&chain, 0, &reply), Ok(reply.len()));
        let len = u32::try_from(reply.len()).expect("short");
        self.device.complete(chain, len).expect("its own chain");
        self.completed.push_back((serial, len));
    }

    fn notify(&mut self) {
        self.counts.published += self.completed.len() as u64;
        self.published.append(&mut self.completed);
        let wanted = self.device.notify();
        let batch = self.judged..self.counts.published;
        self.judged = self.counts.published;
        let expected = if self.event_idx {
            // The driver sets the event to what it takes next, and cannot ask for no interrupts.
            batch.contains(&self.counts.taken)
        } else {
            !batch.is_empty() && self.driver_waits
        };
        assert_eq!(wanted, expected);
    }

    fn take(&mut self) {
        let Some((serial, written)) = self.published.pop_front() else {
            assert_eq!(self.driver.peek_used(), None);
            return;
        };
        let place = self
            .lent
            .iter()
            .position(|lent| lent.serial == serial)
            .expect("in flight");
        let mut lent = self.lent.swap_remove(place);
        let token = lent.token;
        assert_eq!(self.driver.peek_used(), Some(token));
        // SAFETY: these are the buffers that were added.
        let len = lent
            .with_slices(|inputs, outputs| unsafe { self.driver.pop_used(token, inputs, outputs) });
        assert_eq!(len, Ok(written));
        let len = usize::try_from(written).expect("short");
        let reply = lent.writable.concat();
        assert!(
            reply[..len].iter().copied().eq(text(!serial).take(len)),
            "the reply to {serial}"
        );
        assert!(
            reply[len..].iter().all(|&byte| byte == 0),
            "only what was written"
        );
        self.counts.taken += 1;
    }

    fn driver_waits(&mut self, yes: bool) {
        self.driver.set_dev_notify(yes);
        self.driver_waits = yes;
    }

    fn device_waits(&mut self, yes: bool) {
        if yes {
            let pending = self
                .device
                .enable_notifications()
                .expect("an honest driver");
            assert_eq!(pending == Pending::Yes, !self.available.is_empty());
        } else {
            self.device
                .disable_notifications()
                .expect("an honest driver");
        }
        self.device_waits = yes;
    }

    /// Brings everything home.
    fn settle(&mut self) {
        while !self.available.is_empty() {
            self.pop();
        }
        while !self.with_device.is_empty() {
            self.complete(0, 255);
        }
        self.notify();
        while !self.published.is_empty() {
            self.take();
        }
        self.take();
        assert!(self.lent.is_empty());
        assert_eq!(self.driver.available_desc(), usize::from(SIZE));
        let index = (self.counts.added % 65536) as u16;
        assert_eq!(self.device.state(), Some(RingState::Split { index }));
        assert_eq!((self.device.in_flight(), self.device.broken()), (0, None));
    }
}

impl Lent {
    /// Lends the buffers as `virtio-drivers` wants them.
    fn with_slices<R>(
        &mut self,
        use_them: impl for<'a> FnOnce(&'a [&'a [u8]], &'a mut [&'a mut [u8]]) -> R,
    ) -> R {
        let inputs: Vec<&[u8]> = self.readable.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = self.writable.iter_mut().map(Vec::as_mut_slice).collect();
        use_them(&inputs, &mut outputs)
    }
}

/// What the device reaches of the driver's memory.
fn direct() -> Direct {
    let memory = crate::bounce::memory();
    let region = memory.iter().next().expect("one region");
    let start = region.start_addr();
    let ptr = NonNull::new(memory.get_host_address(start).expect("mapped")).expect("not zero");
    let len = usize::try_from(region.len()).expect("mapped");
    let region = Region {
        addr: DmaAddr(start.0),
        ptr,
        len,
    };
    // SAFETY: the mapping is never given up, and Rust refers to nothing in it while a queue works.
    unsafe { Direct::new(vec![region]) }.expect("one region")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_traffic_arrives_whole_and_once(
        event_idx: bool,
        indirect: bool,
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let mut both = Both::new(event_idx, indirect);
        for step in &steps {
            both.apply(step);
        }
        both.settle();
    }
}

/// Batches of all sizes, out of order, for more than two laps of the 16-bit indices.
fn run_for_two_laps(event_idx: bool, indirect: bool) {
    let mut both = Both::new(event_idx, indirect);
    let mut round = 0;
    while both.counts.taken < 2 * 65536 + 1000 {
        both.device_waits(round % 5 != 0);
        both.driver_waits(round % 4 != 0);
        for place in 0..=round % 4 {
            both.add(&[3 + place, 5], &[2; 2][..place % 3]);
        }
        while !both.available.is_empty() {
            both.pop();
        }
        while !both.with_device.is_empty() {
            both.complete(round, 255);
            if round % 3 == 0 {
                both.notify();
            }
        }
        both.notify();
        while !both.published.is_empty() {
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
