//! A card in a slot, with what a test needs to play its driver.

use std::sync::{Arc, Mutex};

use ifcvf_card::{Card, Function, Host, Kind, Loopback, Message, Plan, Product, RamDisk, Served};
use virtq::testing::{HeapDma, HeapMemory};
use virtq::{
    DeviceHold, DmaAllocator, DmaBuffer, Exchange, Queue, QueueConfig, Readable, RingFeatures,
    Writable,
};

pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const VERSION_1: u128 = 1 << 32;
pub(crate) const ACCESS_PLATFORM: u128 = 1 << 33;
const EVENT_IDX: u128 = 1 << 29;
const INDIRECT_DESC: u128 = 1 << 28;
const RING_PACKED: u128 = 1 << 34;
const IN_ORDER: u128 = 1 << 35;

/// Command register: memory decode and bus master.
pub(crate) const ON: u16 = 6;
/// Where BARs 0, 2 and 4 are put.
pub(crate) const BASES: [u64; 3] = [0x10_0000_0000, 0x10_1000_0000, 0x10_2000_0000];

/// Interrupts that have arrived.
#[derive(Debug, Default)]
pub(crate) struct Arrived(Mutex<Vec<(u16, Message)>>);

impl Host for Arrived {
    fn interrupt(&self, vector: u16, message: Message) {
        self.0.lock().unwrap().push((vector, message));
    }
}

/// A card that is on, and the memory that it reaches.
pub(crate) struct Slot {
    pub(crate) card: Arc<Card>,
    pub(crate) heap: Arc<HeapDma>,
    arrived: Arc<Arrived>,
    hold: Arc<DeviceHold>,
    has_count: bool,
}

impl Slot {
    pub(crate) fn new(plan: Plan) -> Self {
        Self::with_disk(plan, &RamDisk::new(64))
    }

    pub(crate) fn of(product: Product) -> Self {
        Self::new(Plan::new(product))
    }

    pub(crate) fn with_disk(plan: Plan, disk: &RamDisk) -> Self {
        let has_count = !plan.product.is_plain() && plan.product.layout().has_count();
        let function = match plan.product.kind() {
            Kind::Net => Function::Net(Box::<Loopback>::default()),
            Kind::Blk => Function::Blk(Box::new(disk.clone())),
        };
        let heap = HeapDma::new();
        let memory = Arc::new(HeapMemory::new(&heap));
        let arrived = Arc::<Arrived>::default();
        let host = Arc::clone(&arrived) as Arc<dyn Host>;
        let card = Card::new(plan, function, memory, host).unwrap();
        for (bar, base) in [0, 2, 4].into_iter().zip(BASES) {
            card.write_config(0x10 + 4 * bar, &base.to_le_bytes());
        }
        card.write_config(4, &ON.to_le_bytes());
        Self {
            card,
            heap,
            arrived,
            hold: DeviceHold::new(),
            has_count,
        }
    }

    /// The interrupts since the last call.
    pub(crate) fn interrupts(&self) -> Vec<(u16, Message)> {
        std::mem::take(&mut *self.arrived.0.lock().unwrap())
    }

    pub(crate) fn config16(&self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.card.read_config(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    pub(crate) fn config32(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.card.read_config(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn read8(&self, bar: u8, offset: u64) -> u8 {
        let mut bytes = [0];
        self.card.read_bar(bar, offset, &mut bytes);
        bytes[0]
    }

    pub(crate) fn read16(&self, bar: u8, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.card.read_bar(bar, offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    pub(crate) fn read32(&self, bar: u8, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.card.read_bar(bar, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write8(&self, bar: u8, offset: u64, value: u8) {
        self.card.write_bar(bar, offset, &[value]);
    }

    pub(crate) fn write16(&self, bar: u8, offset: u64, value: u16) {
        self.card.write_bar(bar, offset, &value.to_le_bytes());
    }

    pub(crate) fn write32(&self, bar: u8, offset: u64, value: u32) {
        self.card.write_bar(bar, offset, &value.to_le_bytes());
    }

    pub(crate) fn status(&self) -> u8 {
        self.read8(0, 0x14)
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.write8(0, 0x14, status);
    }

    pub(crate) fn features(&self) -> u128 {
        if self.status() & DRIVER == 0 {
            self.reset();
            self.set_status(ACKNOWLEDGE);
            self.set_status(ACKNOWLEDGE | DRIVER);
        }
        let word = |select| {
            self.write32(0, 0, select);
            u128::from(self.read32(0, 4))
        };
        word(0) | word(1) << 32 | word(2) << 64 | word(3) << 96
    }

    pub(crate) fn set_features(&self, features: u128) {
        for select in 0..4 {
            let word = features >> (32 * select) & 0xffff_ffff;
            if select < 2 || word != 0 {
                self.write32(0, 0x08, select);
                self.write32(0, 0x0c, word.try_into().unwrap());
            }
        }
    }

    /// Resets the device, which does it at once.
    pub(crate) fn reset(&self) {
        self.set_status(0);
        assert_eq!(self.status(), 0);
    }

    /// As far as `FEATURES_OK`; says whether it stays.
    pub(crate) fn negotiate(&self, features: u128) -> bool {
        self.reset();
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        self.set_features(features);
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    pub(crate) fn run(&self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Tells the card of a ring, without enabling it.
    pub(crate) fn place(&self, index: u16, line: &Line) {
        self.write16(0, 0x16, index);
        self.write16(0, 0x18, line.ring.size());
        if index < self.card.vectors() {
            self.write16(0, 0x1a, index);
            self.read16(0, 0x1a);
        }
        let addresses = line.ring.addresses();
        let parts = [addresses.descriptor, addresses.driver, addresses.device];
        for (at, part) in (0x20..).step_by(8).zip(parts) {
            let [low, high] = halves(part.0);
            self.write32(0, at, low);
            self.write32(0, at + 4, high);
        }
    }

    pub(crate) fn enable(&self, index: u16) {
        self.write16(0, 0x16, index);
        self.write16(0, 0x1c, 1);
    }

    /// Stops a queue and waits for it. Returns how many looks it took.
    pub(crate) fn stop(&self, index: u16) -> usize {
        self.write16(0, 0x16, index);
        self.write16(0, 0x1c, 0);
        (0..100).find(|_| self.read16(0, 0x1c) == 0).unwrap()
    }

    /// The queues of a card that runs, each with 8 entries; they start at `start`.
    pub(crate) fn start(&self, features: u128) -> Vec<Line> {
        assert!(self.negotiate(features | VERSION_1 | ACCESS_PLATFORM));
        if self.has_count {
            self.write32(4, 0x28, 2);
        }
        let queues = self.read16(0, 0x12);
        let lines: Vec<_> = (0..queues).map(|_| self.line(features)).collect();
        for (index, line) in (0..).zip(&lines) {
            self.place(index, line);
            self.enable(index);
        }
        self.run();
        lines
    }

    pub(crate) fn line(&self, features: u128) -> Line {
        let config = QueueConfig {
            size: 8,
            align: 16,
            features: RingFeatures::NONE
                .with_event_idx(features & EVENT_IDX != 0)
                .with_indirect(features & INDIRECT_DESC != 0)
                .with_packed(features & RING_PACKED != 0)
                .with_in_order(features & IN_ORDER != 0),
        };
        let dma = Arc::clone(&self.heap) as Arc<dyn DmaAllocator>;
        let ring = Queue::new(&config, &dma, &self.hold).unwrap();
        Line { ring, dma }
    }

    /// Notifies a queue, and lets the card work until it has nothing to do.
    pub(crate) fn kick(&self, index: u16) {
        self.write16(0, 0x1000 + 4 * u64::from(index), index);
        while self.card.serve() == Served::More {}
    }

    #[track_caller]
    pub(crate) fn assert_lawful(&self) {
        assert_eq!(self.card.violations(), Vec::<String>::new());
    }

    /// The driver has just done something that it must not, and this is how it is called.
    #[track_caller]
    pub(crate) fn assert_blamed(&self, word: &str) {
        let violations = self.card.violations();
        let last = violations.last().map(String::as_str).unwrap_or_default();
        assert!(last.contains(word), "{violations:?}");
    }
}

/// The driver's side of a queue.
pub(crate) struct Line {
    pub(crate) ring: Queue<Exchange>,
    dma: Arc<dyn DmaAllocator>,
}

impl Line {
    /// Makes a request available, with room for an answer of so many bytes. Returns the answer's
    /// page.
    pub(crate) fn offer(&mut self, request: &[u8], answer: usize) -> u64 {
        let buffer = |len: usize| (len > 0).then(|| DmaBuffer::new(&self.dma, len).unwrap());
        let mut readable = buffer(request.len());
        readable
            .iter_mut()
            .for_each(|buffer| buffer.copy_from_slice(request));
        let writable = buffer(answer);
        let page = writable.as_ref().map_or(0, |buffer| buffer.addr().0 / 4096);
        let len = u32::try_from(request.len()).unwrap();
        let exchange = Exchange {
            request: readable.map(|buffer| Readable { buffer, len }),
            answer: writable.map(Writable),
        };
        self.ring
            .add(exchange)
            .map_err(|error| error.reason)
            .unwrap();
        let _ = self.ring.publish();
        page
    }

    /// What the card has used next: how many bytes it has written, and what they are.
    pub(crate) fn take(&mut self) -> Option<(usize, Vec<u8>)> {
        let used = self.ring.take().unwrap()?;
        let answer = used
            .chain
            .answer
            .map_or_else(Vec::new, |answer| answer.0.to_vec());
        Some((used.written as usize, answer))
    }
}

/// The lower and the upper word.
pub(crate) fn halves(value: u64) -> [u32; 2] {
    [value, value >> 32].map(|word| u32::try_from(word & 0xffff_ffff).unwrap())
}
