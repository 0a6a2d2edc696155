//! The driver side: add a batch, publish it, take it back.

use std::hint::black_box;

use virtq::{DeviceHold, Queue, QueueConfig, Readable, RingFeatures};

use super::chains::{BlockRead, BoxedBlockRead, Sample, Scattered};
use super::counterpart::{PackedDevice, PackedDeviceAlone, SplitDevice, SplitDeviceAlone};
use super::theirs::VirtioDrivers;
use super::{Case, Contender, Load, SIZE, Side, Work, counterpart, memory};

/// The cases of this side with this batch.
pub(super) fn cases(batch: u16, cases: &mut Vec<Case>) {
    of_load::<Readable, 1, 0>(batch, cases);
    of_load::<BlockRead, 1, 2>(batch, cases);
    of_load::<Scattered, 2, 14>(batch, cases);
    ours::<BoxedBlockRead>(batch, cases, BOXED);
}

const INLINE: [Contender; 3] = [
    Contender::Split,
    Contender::SplitIndirect,
    Contender::Packed,
];
const BOXED: [Contender; 3] = [
    Contender::SplitBoxed,
    Contender::SplitIndirectBoxed,
    Contender::PackedBoxed,
];

fn of_load<T: Sample, const READ: usize, const WRITE: usize>(batch: u16, cases: &mut Vec<Case>) {
    const { assert!(T::BUFFERS == READ + WRITE) };
    let load = Load {
        buffers: T::BUFFERS,
        batch,
    };
    let side = Side::Driver;
    let split = SplitDevice::new(counterpart::ring_for_driver());
    let work = SplitDeviceAlone {
        device: split,
        batch,
    };
    cases.push(Case::new(side, load, Contender::SplitCounterpart, work));
    let packed = PackedDevice::new(counterpart::ring_for_driver(), T::BUFFERS as u16);
    let work = PackedDeviceAlone {
        device: packed,
        batch,
    };
    cases.push(Case::new(side, load, Contender::PackedCounterpart, work));

    ours::<T>(batch, cases, INLINE);
    let work = VirtioDrivers::<READ, WRITE>::new(batch, false);
    cases.push(Case::new(side, load, Contender::Theirs, work));
    let work = VirtioDrivers::<READ, WRITE>::new(batch, true);
    cases.push(Case::new(side, load, Contender::TheirsIndirect, work));
}

/// Our queues, and what each is called.
fn ours<T: Sample>(batch: u16, cases: &mut Vec<Case>, contenders: [Contender; 3]) {
    let load = Load {
        buffers: T::BUFFERS,
        batch,
    };
    let event_idx = RingFeatures::NONE.with_event_idx(true);
    let indirect = event_idx.with_indirect(true);
    let packed = event_idx.with_packed(true);
    for (features, contender) in [event_idx, indirect, packed].into_iter().zip(contenders) {
        let queue = Filled::<T>::new(batch, features);
        let addresses = queue.queue.addresses();
        let case = if features.packed {
            let device = PackedDevice::new(addresses, T::BUFFERS as u16);
            Case::new(Side::Driver, load, contender, Packed { queue, device })
        } else {
            let device = SplitDevice::new(addresses);
            Case::new(Side::Driver, load, contender, Split { queue, device })
        };
        cases.push(case);
    }
}

/// Our queue and the chains that go through it.
struct Filled<T: Sample> {
    queue: Queue<T>,
    chains: Vec<T>,
    batch: u16,
}

impl<T: Sample> Filled<T> {
    fn new(batch: u16, features: RingFeatures) -> Self {
        let dma = memory::allocator();
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features,
        };
        let queue = Queue::new(&config, &dma, &DeviceHold::new()).expect("memory");
        Self {
            queue,
            chains: (0..batch).map(|_| T::sample(&dma)).collect(),
            batch,
        }
    }

    #[inline]
    fn publish(&mut self) {
        for _ in 0..self.batch {
            let chain = self.chains.pop().expect("all are back");
            black_box(self.queue.add(chain).expect("room"));
        }
        let _ = black_box(self.queue.publish());
    }

    #[inline]
    fn take(&mut self) {
        for _ in 0..self.batch {
            let used = self
                .queue
                .take()
                .expect("an honest device")
                .expect("just used");
            black_box((used.token, used.written));
            self.chains.push(used.chain);
        }
    }
}

struct Split<T: Sample> {
    queue: Filled<T>,
    device: SplitDevice,
}

impl<T: Sample> Work for Split<T> {
    #[inline]
    fn round(&mut self) {
        self.queue.publish();
        self.device.serve();
        self.queue.take();
    }
}

struct Packed<T: Sample> {
    queue: Filled<T>,
    device: PackedDevice,
}

impl<T: Sample> Work for Packed<T> {
    #[inline]
    fn round(&mut self) {
        self.queue.publish();
        self.device.serve();
        self.queue.take();
    }
}
