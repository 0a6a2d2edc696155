//! The driver side before a device that writes what it likes, whenever it likes, into all memory it
//! has.
//!
//! Every answer of the queue is compared with books of what was added, published and given back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use virtq::testing::HeapDma;
use virtq::{
    AddReason, Broken, Chain, DeviceHold, DmaAllocator, DmaBuffer, Notify, Pending, Queue,
    QueueConfig, RingFeatures, RingState, Segment, Used,
};

use super::input::Input;
use super::returns::Device;

/// Runs one program.
///
/// # Panics
/// If the driver side breaks a promise.
pub fn hostile_device(data: &[u8]) {
    let mut input = Input::new(data);
    let mut trial = Trial::new(&mut input);
    while !input.is_empty() {
        trial.step(&mut input);
        trial.compare();
    }
    trial.finish();
}

/// A chain of whole buffers, and a number to know it again.
struct Lent {
    serial: u64,
    readable: Vec<DmaBuffer>,
    writable: Vec<DmaBuffer>,
}

// SAFETY: the segments are whole buffers that the value owns, each once.
unsafe impl Chain for Lent {
    const MAX_SEGMENTS: u16 = 5;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.readable.iter().map(Segment::of)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.writable.iter().map(Segment::of)
    }
}

/// What the books say of a token.
struct Entry {
    serial: u64,
    descriptors: u16,
    writable: u32,
    published: bool,
    /// The chain was taken back by force.
    reclaimed: bool,
}

struct Trial {
    queue: Queue<Lent>,
    features: RingFeatures,
    dma: Arc<HeapDma>,
    allocator: Arc<dyn DmaAllocator>,
    hold: Arc<DeviceHold>,
    device: Device,
    /// By token, for every chain that takes descriptors.
    books: BTreeMap<usize, Entry>,
    /// The tokens in the order in which they were added.
    order: VecDeque<usize>,
    broken: Option<Broken>,
    serial: u64,
    published: u64,
    taken: u64,
}

impl Trial {
    fn new(input: &mut Input) -> Self {
        let bits = input.byte();
        let features = RingFeatures::NONE
            .with_packed(bits & 1 != 0)
            .with_event_idx(bits & 2 != 0)
            .with_indirect(bits & 4 != 0)
            .with_in_order(bits & 8 != 0);
        let size = match input.byte() {
            0xff => 256,
            size if features.packed => 1 + u16::from(size) % 64,
            size => 1 << (size % 7),
        };
        let (index, wrap) = (input.u16(), bits & 16 != 0);
        let state = if features.packed {
            RingState::Packed {
                index: index % size,
                wrap,
            }
        } else {
            RingState::Split { index }
        };
        let dma = HeapDma::new();
        let allocator = Arc::clone(&dma) as Arc<dyn DmaAllocator>;
        let hold = DeviceHold::new();
        let config = QueueConfig {
            size,
            align: 1,
            features,
        };
        let queue = Queue::resume(&config, state, &allocator, &hold).expect("a good configuration");
        let device = Device::new(&dma, queue.addresses(), size, state);
        hold.hold();
        Self {
            queue,
            features,
            dma,
            allocator,
            hold,
            device,
            books: BTreeMap::new(),
            order: VecDeque::new(),
            broken: None,
            serial: 0,
            published: 0,
            taken: 0,
        }
    }

    fn step(&mut self, input: &mut Input) {
        match input.byte() % 16 {
            0..=2 => self.add(input),
            3 => self.publish(),
            4 => drop(self.take()),
            5 => self.take_all(),
            6 if input.flag() => {
                if self.queue.enable_interrupts() == Pending::No {
                    assert!(!self.queue.has_used(), "nobody else writes");
                }
            }
            6 => self.queue.disable_interrupts(),
            7 | 8 => self.device_returns(input),
            9 => self.device_returns_batch(input),
            10 => {
                let (id, written, advance) = (input.u32(), input.u32(), input.u16());
                self.device.put(id, written, advance);
            }
            11 => self.device.poke(input),
            12 => self.device.poke_tail(input),
            13 => self.reclaim(),
            14 => self.restart(),
            _ if input.flag() => self.hold.hold(),
            _ => self.hold.release(),
        }
    }

    fn add(&mut self, input: &mut Input) {
        let shape = input.byte();
        let len = 1 + usize::from(shape >> 6) * 20;
        let buffers = |count: u8| -> Vec<DmaBuffer> {
            let buffer = || DmaBuffer::new(&self.allocator, len).expect("there is memory");
            (0..count).map(|_| buffer()).collect()
        };
        let chain = Lent {
            serial: self.serial,
            readable: buffers(shape & 7),
            writable: buffers(shape >> 3 & 7),
        };
        let segments = u16::from(shape & 7) + u16::from(shape >> 3 & 7);
        let writable = u32::from(shape >> 3 & 7) * u32::try_from(len).expect("small");
        let descriptors = if self.features.indirect {
            segments.min(1)
        } else {
            segments
        };
        let expected = match self.broken {
            Some(broken) => Err(AddReason::Broken(broken)),
            None if segments == 0 => Err(AddReason::Empty),
            None if segments > Lent::MAX_SEGMENTS.min(self.queue.size()) => Err(AddReason::TooLong),
            None if descriptors > self.queue.free() => Err(AddReason::Full),
            None => Ok(()),
        };
        match self.queue.add(chain) {
            Ok(token) => {
                assert_eq!(expected, Ok(()));
                assert!(token.index() < usize::from(self.queue.size()));
                let (serial, published, reclaimed) = (self.serial, false, false);
                let entry = Entry {
                    serial,
                    descriptors,
                    writable,
                    published,
                    reclaimed,
                };
                let before = self.books.insert(token.index(), entry);
                assert!(before.is_none(), "two chains have one token");
                self.order.push_back(token.index());
                self.serial += 1;
            }
            Err(error) => {
                assert_eq!(expected, Err(error.reason));
                assert_eq!(error.chain.serial, self.serial, "the chain comes back");
            }
        }
    }

    fn publish(&mut self) {
        let fresh = self.books.values_mut().filter(|entry| !entry.published);
        let fresh = fresh.map(|entry| entry.published = true).count() as u64;
        let notify = self.queue.publish();
        assert!(
            fresh > 0 || notify == Notify::NotNeeded,
            "nothing was published"
        );
        self.published += fresh;
    }

    /// Takes a chain, and compares it with the books.
    fn take(&mut self) -> Option<Used<Lent>> {
        let result = self.queue.take();
        if let Some(broken) = self.broken {
            assert_eq!(result.err(), Some(broken), "a broken queue stays so");
            return None;
        }
        match result {
            Ok(used) => {
                let used = used?;
                let token = used.token.index();
                let entry = self.books.remove(&token).expect("a chain comes back once");
                assert_eq!(
                    used.chain.serial, entry.serial,
                    "its chain comes with a token"
                );
                assert!(entry.published && !entry.reclaimed, "the device had it");
                assert!(
                    used.written <= entry.writable,
                    "the device had no room for so much"
                );
                let place = self.order.iter().position(|&other| other == token);
                let place = place.expect("every chain has a place");
                assert!(
                    place == 0 || !self.features.in_order,
                    "chains come back in order"
                );
                self.order.remove(place);
                self.taken += 1;
                Some(used)
            }
            Err(broken) => {
                self.broken = Some(broken);
                None
            }
        }
    }

    fn take_all(&mut self) {
        let most = self.queue.in_flight();
        let taken = (0..=most).take_while(|_| self.take().is_some()).count();
        assert!(
            taken <= usize::from(most),
            "more chains come back than the device had"
        );
    }

    /// The device returns a chain that it has, and perhaps says too much of it.
    fn device_returns(&mut self, input: &mut Input) {
        let (which, written) = (input.byte(), input.byte());
        let published = || self.books.iter().filter(|(_, entry)| entry.published);
        let Some(nth) = usize::from(which).checked_rem(published().count()) else {
            return;
        };
        let (&token, entry) = published().nth(nth).expect("below their number");
        let id = u32::try_from(token).expect("a small number");
        let advance = if self.features.packed {
            entry.descriptors
        } else {
            1
        };
        self.device.put(id, u32::from(written), advance);
    }

    /// The device returns some chains by the last of them, as it may if it uses them in order.
    fn device_returns_batch(&mut self, input: &mut Input) {
        let count = 1 + usize::from(input.byte());
        let published = |token: &&usize| self.books[*token].published;
        let batch: Vec<_> = self
            .order
            .iter()
            .take_while(published)
            .take(count)
            .collect();
        let Some(&&last) = batch.last() else { return };
        let id = u32::try_from(last).expect("a small number");
        let advance = if self.features.packed {
            batch
                .iter()
                .map(|token| self.books[*token].descriptors)
                .sum()
        } else {
            u16::try_from(batch.len()).expect("a small number")
        };
        self.device.put(id, 0, advance);
    }

    /// Takes a chain back by force.
    fn reclaim(&mut self) {
        let reclaimed = self.queue.reclaim();
        if self.hold.is_held() {
            assert!(reclaimed.is_none(), "the device may touch it");
            return;
        }
        let mut left = self.books.values_mut().filter(|entry| !entry.reclaimed);
        match reclaimed {
            Some(chain) => {
                let entry = left.find(|entry| entry.serial == chain.serial);
                entry.expect("a chain comes back once").reclaimed = true;
            }
            None => assert!(left.next().is_none(), "a chain is lost"),
        }
    }

    fn restart(&mut self) {
        let result = self.queue.restart();
        assert_eq!(result.is_err(), self.hold.is_held());
        if result.is_ok() {
            self.books.clear();
            self.order.clear();
            self.broken = None;
            self.device.restart(self.features);
            assert_eq!(self.queue.state(), Some(RingState::start(self.features)));
        }
    }

    fn compare(&self) {
        let taken: u16 = self.books.values().map(|entry| entry.descriptors).sum();
        assert_eq!(self.queue.free(), self.queue.size() - taken);
        let in_flight = self.books.values().filter(|entry| entry.published).count();
        assert_eq!(usize::from(self.queue.in_flight()), in_flight);
        assert_eq!(self.queue.broken(), self.broken);
        assert_eq!(self.queue.state().is_some(), self.books.is_empty());
        let counted = self.queue.statistics().snapshot();
        assert_eq!((counted.added, counted.used), (self.published, self.taken));
    }

    fn finish(mut self) {
        self.hold.release();
        while self.books.values().any(|entry| !entry.reclaimed) {
            self.reclaim();
        }
        self.reclaim();
        drop(self.queue);
        assert_eq!(self.dma.outstanding(), 0, "all memory comes back");
    }
}
