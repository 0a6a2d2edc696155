//! The inside of a network device that gives back what it is sent.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Platform;
use vdpa::testing::{DeviceRing, FakePlatform};
use virtq::{RingAddresses, RingFeatures};

use super::device::{FakeDevice, Queue};

const LOOK: Duration = Duration::from_micros(100);
const DRIVER_OK: u32 = 4;

/// Serves the queues of a device until nobody but the server knows it.
pub fn spawn(platform: &Arc<FakePlatform>, device: &Arc<FakeDevice>) {
    let (clock, device) = (Arc::clone(platform), Arc::clone(device));
    let task = async move {
        let mut rings: Option<[DeviceRing; 2]> = None;
        let mut resets = 0;
        loop {
            serve(&mut rings, &mut resets, &device, &clock);
            clock.sleep(LOOK).await;
        }
    };
    platform.spawn("loopback", Box::pin(task));
}

fn serve(
    rings: &mut Option<[DeviceRing; 2]>,
    resets: &mut u32,
    device: &FakeDevice,
    platform: &FakePlatform,
) {
    {
        let state = device.state.lock();
        if *resets != state.resets || !state.queues.iter().all(|queue| queue.ready) {
            (*rings, *resets) = (None, state.resets);
        }
        if state.status & DRIVER_OK == 0 || !state.queues.iter().all(|queue| queue.ready) {
            return;
        }
        if rings.is_none() {
            let features = vdpa::Features::from_bits(state.driver_features);
            let features = RingFeatures::NONE
                .with_event_idx(features.contains(virtio::F::EVENT_IDX))
                .with_indirect(features.contains(virtio::F::INDIRECT_DESC));
            let ring = |queue: &Queue| {
                let address = queue.address();
                let addresses = RingAddresses {
                    descriptor: address.descriptor,
                    driver: address.driver,
                    device: address.device,
                };
                let size = u16::try_from(queue.size).unwrap();
                DeviceRing::new(platform.heap(), addresses, size, features)
            };
            *rings = Some([ring(&state.queues[0]), ring(&state.queues[1])]);
        }
    }
    let Some([receive, transmit]) = rings else {
        return;
    };
    while let Some(sent) = transmit.pop() {
        let mut frame = transmit.read(&sent);
        transmit.finish(&sent, 0);
        if let Some(room) = receive.pop() {
            frame[10] = 1;
            receive.write(&room, 0, &frame);
            receive.finish(&room, u32::try_from(frame.len()).unwrap());
        }
    }
    let wanted = [receive, transmit].map(|ring| ring.wants_interrupt());
    if wanted.contains(&true) {
        device.interrupt(1, platform);
    }
}
