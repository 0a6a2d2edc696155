//! The inside of a virtio network function that gives back what it is sent.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Platform;
use vdpa::testing::{DeviceRing, FakePlatform, HeapDma, Request};
use virtq::testing::PackedDevice;
use virtq::{RingAddresses, RingFeatures};

use crate::fakes::registers::Queue;
use crate::fakes::virtio::FakeVirtio;

const LOOK: Duration = Duration::from_micros(100);
const DRIVER_OK: u8 = 4;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Serves the queues of a function until nobody but the server knows it.
pub fn spawn(platform: &Arc<FakePlatform>, device: &Arc<FakeVirtio>) {
    let (clock, device) = (Arc::clone(platform), Arc::downgrade(device));
    let task = async move {
        let mut loopback = Loopback::default();
        while let Some(device) = device.upgrade() {
            loopback.serve(&device, &clock);
            drop(device);
            clock.sleep(LOOK).await;
        }
    };
    platform.spawn("loopback", Box::pin(task));
}

#[derive(Default)]
struct Loopback {
    rings: [Option<Ring>; 2],
    resets: u32,
}

enum Ring {
    Split(DeviceRing),
    Packed(PackedDevice),
}

impl Loopback {
    fn serve(&mut self, device: &FakeVirtio, platform: &FakePlatform) {
        {
            let state = device.state.lock();
            if self.resets != state.resets {
                (self.rings, self.resets) = (Default::default(), state.resets);
            }
            // A suspended device shows no `DRIVER_OK`.
            if state.status & DRIVER_OK == 0 {
                return;
            }
            let features = ring_features(state.driver_features);
            for (ring, queue) in self.rings.iter_mut().zip(&state.queues) {
                if !queue.enabled {
                    *ring = None;
                } else if ring.is_none() {
                    *ring = Some(Ring::new(platform.heap(), queue, features));
                }
            }
        }
        let [Some(receive), Some(transmit)] = &mut self.rings else {
            return;
        };
        while let Some(sent) = transmit.pop() {
            let mut frame = transmit.read(&sent);
            transmit.finish(&sent, &[]);
            if let Some(room) = receive.pop() {
                frame[10] = 1;
                receive.finish(&room, &frame);
            }
        }
        for (queue, ring) in [(RECEIVE, receive), (TRANSMIT, transmit)] {
            if ring.wants_interrupt() {
                device.interrupt_queue(queue, platform);
            }
        }
    }
}

impl Ring {
    fn new(heap: &Arc<HeapDma>, queue: &Queue, features: RingFeatures) -> Self {
        let address = queue.address();
        let addresses = RingAddresses {
            descriptor: address.descriptor,
            driver: address.driver,
            device: address.device,
        };
        if features.packed {
            Self::Packed(PackedDevice::new(heap, addresses, queue.size, features))
        } else {
            Self::Split(DeviceRing::new(heap, addresses, queue.size, features))
        }
    }

    fn pop(&mut self) -> Option<Request> {
        match self {
            Self::Split(ring) => ring.pop(),
            Self::Packed(ring) => ring.pop(),
        }
    }

    fn read(&self, request: &Request) -> Vec<u8> {
        match self {
            Self::Split(ring) => ring.read(request),
            Self::Packed(ring) => ring.read(request),
        }
    }

    fn finish(&mut self, request: &Request, bytes: &[u8]) {
        let written = u32::try_from(bytes.len()).unwrap();
        match self {
            Self::Split(ring) => {
                ring.write(request, 0, bytes);
                ring.finish(request, written);
            }
            Self::Packed(ring) => {
                ring.write(request, 0, bytes);
                ring.finish(request, written);
            }
        }
    }

    fn wants_interrupt(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.wants_interrupt(),
            Self::Packed(ring) => ring.wants_interrupt(),
        }
    }
}

fn ring_features(bits: u128) -> RingFeatures {
    let features = vdpa::Features::from_bits(bits);
    RingFeatures::NONE
        .with_packed(features.contains(virtio::F::RING_PACKED))
        .with_event_idx(features.contains(virtio::F::EVENT_IDX))
        .with_indirect(features.contains(virtio::F::INDIRECT_DESC))
        .with_in_order(features.contains(virtio::F::IN_ORDER))
}
