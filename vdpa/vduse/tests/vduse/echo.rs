//! A network card whose receive queue gets what its transmit queue sends (VIRTIO 1.2, 5.1).

use std::collections::VecDeque;

use vdpa::Features;
use vdpa::config::net;
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Job, Task, TaskDevice, TaskError, Turn};
use virtio::net::{F, S};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// The length of `virtio_net_hdr` with `VIRTIO_F_VERSION_1`.
const HEADER: usize = 12;
const FRAME_MAX: usize = 2048;
/// The size of the configuration space, up to `mtu`.
const CONFIG_SIZE: usize = 12;

/// The card, and the buffers that it has for frames.
#[derive(Default)]
pub struct Echo {
    buffers: VecDeque<Job>,
}

/// A card whose queues are in so many groups, each of which may have an address space of its own.
pub fn config(name: &str, groups: u32) -> DeviceConfig {
    let ring = virtio::F::EVENT_IDX | virtio::F::RING_PACKED;
    let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
    let features = Features::from(F::MAC | F::STATUS) | ring.into() | base.into();
    let mut space = [0; CONFIG_SIZE];
    net::MAC.put(&mut space, [2, 0, 0, 0, 0, 1]);
    net::STATUS.put(&mut space, S::LINK_UP.bits().to_ne());
    DeviceConfig {
        name: name.into(),
        vendor_id: 0,
        device_id: 1,
        features: u64::try_from(features.bits()).unwrap(),
        queues: 2,
        queue_align: 1,
        groups,
        address_spaces: groups,
        config: space.into(),
    }
}

pub fn set_up(task: &Task, groups: u32) {
    for index in 0..2 {
        let setup = QueueSetup {
            index,
            size_max: 64,
            group: index % groups,
        };
        task.set_up_queue(setup).unwrap();
    }
}

impl TaskDevice for Echo {
    fn stop(&mut self) {
        self.buffers.clear();
    }

    fn let_go(&mut self) {
        self.buffers.clear();
    }

    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        loop {
            if let Some(buffer) = task.take(RECEIVE)? {
                self.buffers.push_back(buffer);
                continue;
            }
            if self.buffers.is_empty() {
                break;
            }
            let Some(sent) = task.take(TRANSMIT)? else {
                break;
            };
            let mut frame = [0; FRAME_MAX];
            let len = task.read(sent, 0, &mut frame)?;
            if len >= HEADER {
                // A header of its own: in one buffer, with nothing left to be done.
                frame[..HEADER].fill(0);
                frame[10] = 1;
                let buffer = self.buffers.pop_front().unwrap();
                task.write(buffer, 0, &frame[..len])?;
                task.complete(buffer)?;
                task.flush(RECEIVE)?;
            }
            task.complete(sent)?;
            task.flush(TRANSMIT)?;
        }
        Ok(Turn::Idle)
    }
}
