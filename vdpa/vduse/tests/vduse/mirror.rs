//! A device whose answer is its request, from the end to the start, on its second queue.

use vdpa::Features;
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Task, TaskDevice, TaskError, Turn};

pub const QUEUE: u16 = 1;
/// What there is room for in an answer.
pub const ROOM: usize = 64;

/// The device. Its answers are too long by so much.
pub struct Mirror {
    pub surplus: i8,
}

pub fn config(name: &str) -> DeviceConfig {
    let ring = virtio::F::EVENT_IDX | virtio::F::RING_PACKED;
    let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
    let features = Features::from(ring) | base.into();
    DeviceConfig {
        name: name.into(),
        vendor_id: 0,
        // A file system, which is the third type that Linux lets tasks have.
        device_id: u8::from(virtio::Id::Fs).into(),
        features: u64::try_from(features.bits()).unwrap(),
        queues: 2,
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: vec![0; 44],
    }
}

pub fn set_up(task: &Task) {
    for index in 0..2 {
        let setup = QueueSetup {
            index,
            size_max: 64,
            group: 0,
        };
        task.set_up_queue(setup).unwrap();
    }
}

/// A message of this number: of another length than its neighbours.
pub fn message(number: u8) -> Vec<u8> {
    let len = 2 + usize::from(number) % (ROOM - 4);
    (0..len).map(|at| number ^ at as u8).collect()
}

impl TaskDevice for Mirror {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        while let Some(job) = task.take(QUEUE)? {
            let mut bytes = [0; ROOM];
            let len = task.read(job, 0, &mut bytes)?;
            let answer = &mut bytes[..len];
            answer.reverse();
            let told = len.saturating_add_signed(self.surplus.into());
            task.write(job, 0, &bytes[..told])?;
            task.complete(job)?;
        }
        task.flush(QUEUE)?;
        Ok(Turn::Idle)
    }
}
