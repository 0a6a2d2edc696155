//! The device side: pop a batch and look at every segment, complete it, publish it and ask whether
//! the driver wants to be notified.

use std::hint::black_box;

use virtq::device::{Chain, DeviceConfig, DeviceQueue, Direct, Region};
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

    let event_idx = RingFeatures {
        event_idx: true,
        ..RingFeatures::default()
    };
    let addresses = ring_for_driver();
    let driver = SplitDriver::new(addresses, load);
    let work = Split {
        device: Popping::new(addresses, load, event_idx),
        driver,
    };
    cases.push(Case::new(side, load, Contender::Split, work));
    let addresses = ring_for_driver();
    let driver = PackedDriver::new(addresses, load);
    let features = RingFeatures {
        packed: true,
        ..event_idx
    };
    let work = Packed {
        device: Popping::new(addresses, load, features),
        driver,
    };
    cases.push(Case::new(side, load, Contender::Packed, work));

    let work = VirtioQueue::new(ring_for_driver(), load);
    cases.push(Case::new(side, load, Contender::Theirs, work));
}

/// Our queue and the chains that it has popped.
struct Popping {
    queue: DeviceQueue<Direct>,
    chains: Vec<Chain>,
}

impl Popping {
    fn new(addresses: RingAddresses, load: Load, features: RingFeatures) -> Self {
        let config = DeviceConfig {
            size: SIZE,
            features,
            addresses,
            state: RingState::start(features),
            chain_max: SIZE,
            in_flight_max: SIZE,
        };
        let queue = DeviceQueue::new(&config, direct()).expect("a good ring");
        Self {
            queue,
            chains: Vec::with_capacity(usize::from(load.batch)),
        }
    }

    #[inline]
    fn serve(&mut self) {
        while let Some(chain) = self.queue.pop().expect("an honest driver") {
            for segment in chain.readable().iter().chain(chain.writable()) {
                black_box((segment.addr, segment.len));
            }
            self.chains.push(chain);
        }
        for chain in self.chains.drain(..) {
            self.queue.complete(chain, 0).expect("its own chain");
        }
        black_box(self.queue.notify());
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

struct Split {
    device: Popping,
    driver: SplitDriver,
}

impl Work for Split {
    #[inline]
    fn round(&mut self) {
        self.driver.publish();
        self.device.serve();
    }
}

struct Packed {
    device: Popping,
    driver: PackedDriver,
}

impl Work for Packed {
    #[inline]
    fn round(&mut self) {
        self.driver.publish();
        self.device.serve();
    }
}
