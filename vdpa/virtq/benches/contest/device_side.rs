//! The device side: pop a batch and look at every segment, complete it, publish it and ask whether
//! the driver wants to be notified.

use std::hint::black_box;
use std::sync::Arc;

use virtq::device::{Chain, DeviceConfig, DeviceQueue, DeviceTlb, Direct, Memory, Region};
use virtq::{RingAddresses, RingFeatures, RingState};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::counterpart::{PackedDriver, SplitDriver, ring_for_driver};
use super::theirs::VirtioQueue;
use super::{Case, Contender, Load, SIZE, Side, Work, memory};

/// The cases of this side with this load.
pub(super) fn cases(load: Load, cases: &mut Vec<Case>) {
    let side = Side::Device;
    let work = SplitDriver::new(ring_for_driver(), load);
    cases.push(Case::new(side, load, Contender::SplitCounterpart, work));
    let work = PackedDriver::new(ring_for_driver(), load);
    cases.push(Case::new(side, load, Contender::PackedCounterpart, work));

    let event_idx = RingFeatures::NONE.with_event_idx(true);
    let addresses = ring_for_driver();
    let driver = SplitDriver::new(addresses, load);
    let work = Split {
        device: Popping::new(direct(), look_at_segments, addresses, load, event_idx),
        driver,
    };
    cases.push(Case::new(side, load, Contender::Split, work));
    let addresses = ring_for_driver();
    let driver = SplitDriver::new(addresses, load);
    // A type of its own, so that the compiler treats the queues above as it does without this one.
    let memory = Arc::new(direct());
    let work = Split {
        device: Popping::new(memory, find_pieces, addresses, load, event_idx),
        driver,
    };
    cases.push(Case::new(side, load, Contender::SplitInPlace, work));
    let addresses = ring_for_driver();
    let driver = SplitDriver::new(addresses, load);
    let tlb = DeviceTlb::new(memory::Everything);
    let work = Split {
        device: Popping::new(tlb, find_pieces, addresses, load, event_idx),
        driver,
    };
    cases.push(Case::new(side, load, Contender::SplitTranslated, work));
    let addresses = ring_for_driver();
    let driver = PackedDriver::new(addresses, load);
    let features = event_idx.with_packed(true);
    let work = Packed {
        device: Popping::new(direct(), look_at_segments, addresses, load, features),
        driver,
    };
    cases.push(Case::new(side, load, Contender::Packed, work));

    let work = VirtioQueue::new(ring_for_driver(), load);
    cases.push(Case::new(side, load, Contender::Theirs, work));
}

/// Our queue and the chains that it has popped.
struct Popping<M, F> {
    queue: DeviceQueue<M>,
    /// What is done with a chain.
    look: F,
    chains: Vec<Chain>,
}

impl<M: Memory, F: Fn(&DeviceQueue<M>, &Chain)> Popping<M, F> {
    fn new(
        memory: M,
        look: F,
        addresses: RingAddresses,
        load: Load,
        features: RingFeatures,
    ) -> Self {
        let config = DeviceConfig {
            size: SIZE,
            features,
            addresses,
            state: RingState::start(features),
            chain_max: SIZE,
            in_flight_max: SIZE,
        };
        let queue = DeviceQueue::new(&config, memory).expect("a good ring");
        Self {
            queue,
            look,
            chains: Vec::with_capacity(usize::from(load.batch)),
        }
    }

    #[inline]
    fn serve(&mut self) {
        while let Some(chain) = self.queue.pop().expect("an honest driver") {
            (self.look)(&self.queue, &chain);
            self.chains.push(chain);
        }
        for chain in self.chains.drain(..) {
            self.queue.complete(chain, 0).expect("its own chain");
        }
        black_box(self.queue.notify());
    }
}

#[inline]
fn look_at_segments<M>(_: &DeviceQueue<M>, chain: &Chain) {
    for segment in chain.readable().iter().chain(chain.writable()) {
        black_box((segment.addr, segment.len));
    }
}

/// Finds each buffer on the host, as a device does that copies nothing.
#[inline]
fn find_pieces<M: Memory>(queue: &DeviceQueue<M>, chain: &Chain) {
    let readable = queue.readable_pieces(chain);
    for piece in readable.chain(queue.writable_pieces(chain)) {
        let piece = piece.expect("mapped memory");
        black_box((piece.ptr, piece.len));
    }
}

/// The memory of every queue, at one place on the host.
fn direct() -> Direct {
    let memory = memory::guest_memory();
    let region = memory.iter().next().expect("one region");
    let addr = virtq::DmaAddr(region.start_addr().0);
    let ptr = memory::host(addr);
    let len = usize::try_from(region.len()).expect("mapped");
    // SAFETY: the mapping is never given up, and Rust refers to nothing in it while a queue works.
    unsafe { Direct::new(vec![Region { addr, ptr, len }]) }.expect("one region")
}

struct Split<M, F> {
    device: Popping<M, F>,
    driver: SplitDriver,
}

impl<M: Memory, F: Fn(&DeviceQueue<M>, &Chain)> Work for Split<M, F> {
    #[inline]
    fn round(&mut self) {
        self.driver.publish();
        self.device.serve();
    }
}

struct Packed<M, F> {
    device: Popping<M, F>,
    driver: PackedDriver,
}

impl<M: Memory, F: Fn(&DeviceQueue<M>, &Chain)> Work for Packed<M, F> {
    #[inline]
    fn round(&mut self) {
        self.driver.publish();
        self.device.serve();
    }
}
