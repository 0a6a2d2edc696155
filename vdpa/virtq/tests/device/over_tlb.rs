//! Both ends of a queue over addresses that are neither the platform's nor the host's: the driver's
//! memory is placed, and the device finds it through its translation cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::table::{Table, whole};
use virtq::device::{Broken, DeviceConfig, DeviceQueue, DeviceTlb, Fault, PopError, TransferError};
use virtq::testing::HeapDma;
use virtq::{
    Arena, Chain, DeviceHold, DeviceMemory, DmaAddr, DmaAllocator, DmaBuffer, DmaError, Pending,
    PlacedDma, Placement, Queue, QueueConfig, RingFeatures, RingState, Segment, SharedMemory,
};

const SIZE: u16 = 8;

/// A question, and room for the answer.
struct Exchange {
    question: DmaBuffer,
    answer: DmaBuffer,
}

// SAFETY: the segments are whole buffers that the value owns.
unsafe impl Chain for Exchange {
    const MAX_SEGMENTS: u16 = 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        std::iter::once(Segment::of(&self.question))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        std::iter::once(Segment::of(&self.answer))
    }
}

/// Maps each allocation on its own, at an address that nobody else uses for it.
struct Space {
    table: Arc<Table>,
    next: AtomicU64,
}

// SAFETY: the table is that of one device, whose only queue is the driver's.
unsafe impl Placement for Space {
    fn place(&self, memory: &DeviceMemory) -> Result<DmaAddr, DmaError> {
        // A page lies between any two.
        let room = memory.len().next_multiple_of(0x1000) + 0x1000;
        let first = self.next.fetch_add(room, Ordering::Relaxed);
        self.table.map(whole(first, memory.clone()));
        Ok(DmaAddr(first))
    }

    fn withdraw(&self, addr: DmaAddr, _len: u64) {
        self.table.unmap(addr.0);
    }
}

type Device = DeviceQueue<DeviceTlb<Arc<Table>>>;

struct Pair {
    heap: Arc<HeapDma>,
    table: Arc<Table>,
    dma: Arc<dyn DmaAllocator>,
    driver: Queue<Exchange>,
    device: Device,
}

impl Pair {
    /// The driver's memory is mapped piece by piece.
    fn placed(features: RingFeatures) -> Self {
        let (heap, table) = (HeapDma::new(), Arc::new(Table::default()));
        let space = Space {
            table: Arc::clone(&table),
            next: AtomicU64::new(0x5555_0000_0000),
        };
        let dma = PlacedDma::new(Arc::clone(&heap) as Arc<dyn DmaAllocator>, space);
        Self::new(heap, table, dma, features)
    }

    /// The driver's memory is mapped as a whole.
    fn in_arena(features: RingFeatures) -> Self {
        let (heap, table) = (HeapDma::new(), Arc::new(Table::default()));
        let source = Arc::clone(&heap) as Arc<dyn DmaAllocator>;
        let memory = SharedMemory::new(&source, 0x8000).unwrap();
        // SAFETY: as for `Space`.
        let lent = unsafe { DeviceMemory::lent(&memory) };
        table.map(whole(0x6000, lent));
        let dma = Arena::new(memory, DmaAddr(0x6000)).unwrap();
        Self::new(heap, table, dma, features)
    }

    fn new(
        heap: Arc<HeapDma>,
        table: Arc<Table>,
        dma: Arc<dyn DmaAllocator>,
        features: RingFeatures,
    ) -> Self {
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features,
        };
        let driver = Queue::new(&config, &dma, &DeviceHold::new()).unwrap();
        let config = DeviceConfig {
            size: SIZE,
            features,
            addresses: driver.addresses(),
            state: RingState::start(features),
            chain_max: SIZE,
            in_flight_max: SIZE,
        };
        let device = DeviceQueue::new(&config, DeviceTlb::new(Arc::clone(&table))).unwrap();
        Self {
            heap,
            table,
            dma,
            driver,
            device,
        }
    }

    fn send(&mut self, text: &[u8]) {
        let mut question = DmaBuffer::new(&self.dma, text.len()).unwrap();
        question.copy_from_slice(text);
        let answer = DmaBuffer::new(&self.dma, text.len()).unwrap();
        assert!(self.driver.add(Exchange { question, answer }).is_ok());
        let _ = self.driver.publish();
    }
}

/// Answers everything with what was asked, the other way round.
fn serve(device: &mut Device) {
    while let Some(chain) = device.pop().unwrap() {
        let mut text = vec![0; usize::try_from(chain.readable_len()).unwrap()];
        assert_eq!(device.pull(&chain, 0, &mut text), Ok(text.len()));
        text.reverse();
        assert_eq!(device.push(&chain, 0, &text), Ok(text.len()));
        device
            .complete(chain, u32::try_from(text.len()).unwrap())
            .unwrap();
    }
    let _ = device.notify();
}

fn all_features() -> impl Iterator<Item = RingFeatures> {
    (0..8).map(|bits| {
        RingFeatures::NONE
            .with_packed(bits & 1 != 0)
            .with_event_idx(bits & 2 != 0)
            .with_indirect(bits & 4 != 0)
    })
}

/// Enough to go around the ring.
const ROUNDS: u8 = if cfg!(miri) { 5 } else { 20 };

#[test]
fn questions_are_answered_across_the_translation() {
    for features in all_features() {
        for mut pair in [Pair::placed(features), Pair::in_arena(features)] {
            for round in 0..ROUNDS {
                let questions = 1 + round % 3;
                for number in 0..questions {
                    pair.send(&[round, number, 3, 4, 5]);
                }
                serve(&mut pair.device);
                for _ in 0..questions {
                    let used = pair.driver.take().unwrap().unwrap();
                    let Exchange { question, answer } = used.chain;
                    let turned: Vec<_> = question.iter().rev().copied().collect();
                    assert_eq!((used.written, &answer[..]), (5, &turned[..]));
                }
            }
            drop(pair.driver);
            drop(pair.dma);
            pair.device.refresh();
            // An arena stays mapped.
            pair.table.forget();
            drop(pair.device);
            assert_eq!(pair.heap.outstanding(), 0);
        }
    }
}

#[test]
fn a_device_in_another_thread_serves_through_its_own_cache() {
    let mut pair = Pair::placed(RingFeatures::default());
    for round in 0..ROUNDS {
        pair.send(&[round; 100]);
        // The queue moves to the thread and back, with its cache.
        let mut device = pair.device;
        pair.device = thread::spawn(move || {
            serve(&mut device);
            device
        })
        .join()
        .unwrap();
        let used = pair.driver.take().unwrap().unwrap();
        assert_eq!(&used.chain.answer[..], &[round; 100]);
    }
}

#[test]
fn an_arena_that_is_known_is_not_looked_up_again() {
    let mut pair = Pair::in_arena(RingFeatures::default());
    for _ in 0..20 {
        pair.send(b"hello");
        serve(&mut pair.device);
        assert!(pair.driver.take().unwrap().is_some());
    }
    assert_eq!(pair.table.lookups(), 1);
}

#[test]
fn a_buffer_that_is_unmapped_while_the_device_has_it_is_not_touched() {
    for features in all_features() {
        let mut pair = Pair::placed(features);
        pair.send(b"hello");
        let chain = pair.device.pop().unwrap().unwrap();
        let mut text = [0; 5];
        assert_eq!(pair.device.pull(&chain, 0, &mut text), Ok(5));
        pair.table.unmap(chain.readable()[0].addr.0);
        pair.table.unmap(chain.writable()[0].addr.0);
        let fault = TransferError {
            done: 0,
            fault: Fault::NoMapping,
        };
        assert_eq!(pair.device.pull(&chain, 0, &mut text), Err(fault));
        assert_eq!(pair.device.push(&chain, 0, &text), Err(fault));
        // The request can still be answered.
        pair.device.complete(chain, 0).unwrap();
        let _ = pair.device.notify();
        let used = pair.driver.take().unwrap().unwrap();
        assert_eq!((used.written, &used.chain.answer[..]), (0, &[0; 5][..]));
    }
}

#[test]
fn a_device_that_waits_lets_go_of_memory_when_it_is_told() {
    let mut pair = Pair::placed(RingFeatures::default());
    pair.send(&[1; 4096]);
    serve(&mut pair.device);
    assert_eq!(pair.device.enable_notifications(), Ok(Pending::No));
    let ring = pair.heap.outstanding() - 2 * 4096;
    drop(pair.driver.take().unwrap());
    assert_eq!(pair.heap.outstanding(), ring + 2 * 4096, "the cache has it");
    pair.device.refresh();
    assert_eq!(pair.heap.outstanding(), ring);
    // Nothing was lost with it.
    pair.send(b"hello");
    serve(&mut pair.device);
    assert!(pair.driver.take().unwrap().is_some());
}

#[test]
fn a_ring_that_is_unmapped_breaks_the_queue_and_is_not_touched() {
    for features in all_features() {
        let mut pair = Pair::placed(features);
        pair.send(b"hello");
        serve(&mut pair.device);
        pair.send(b"hello");
        pair.table.forget();
        // Known mappings stay good until the generation says otherwise.
        assert!(pair.device.pop().unwrap().is_some());
        pair.table.unmap(0);
        pair.send(b"hello");
        let broken = Broken::RingFault(Fault::NoMapping);
        assert_eq!(pair.device.pop().unwrap_err(), PopError::Broken(broken));
    }
}
