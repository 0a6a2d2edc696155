//! A network card (VIRTIO 1.2, 5.1) that hands frames on to something below it and back, if its rules
//! say so.

use alloc::collections::VecDeque;

use vdpa::Features;
use vdpa::config::net;
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Job, Task, TaskDevice, TaskError, Turn};
use virtio::net::{F, S};

use super::rules::{Rules, Verdict};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUES: u32 = 2;
/// The length of `virtio_net_hdr`, and where `num_buffers` is in it. With `VIRTIO_F_VERSION_1` it is
/// there whether buffers are merged or not (VIRTIO 1.2, 5.1.6.1).
const HEADER: usize = 12;
const NUM_BUFFERS: usize = 10;
/// The longest frame, with a VLAN tag.
pub const FRAME_MAX: usize = 1518;
/// The size of the configuration space, up to `max_virtqueue_pairs`.
const CONFIG_SIZE: usize = 10;
/// Frames of each direction in a turn, before others come.
const BUDGET: usize = 64;

/// What is below the filter. Who has frames there for it wakes the task.
pub trait Below: Send {
    /// The length of the next frame, if there is one.
    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize>;

    /// Sends a frame, or loses it, as networks do.
    fn send(&mut self, frame: &[u8]);
}

/// The card.
pub struct PacketFilter<B> {
    pub rules: Rules,
    /// How many frames were dropped by the rules.
    pub dropped: u64,
    /// How many frames from below were lost, as the driver's next buffer was too small for them.
    pub lost: u64,
    below: B,
    /// Whether a frame may lie in several buffers.
    merges: bool,
    /// Buffers for frames.
    buffers: VecDeque<Job>,
    frame: [u8; FRAME_MAX],
    /// The length of the frame that waits for buffers.
    waiting: Option<usize>,
    out: [u8; HEADER + FRAME_MAX],
}

/// What the device of a filter is made from.
pub fn config(name: &str, mac: [u8; 6]) -> DeviceConfig {
    let ring = virtio::F::EVENT_IDX | virtio::F::RING_PACKED | virtio::F::INDIRECT_DESC;
    let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
    let features = Features::from(F::MAC | F::STATUS | F::MRG_RXBUF) | ring.into() | base.into();
    let mut space = [0; CONFIG_SIZE];
    net::MAC.put(&mut space, mac);
    net::STATUS.put(&mut space, S::LINK_UP.bits().to_ne());
    DeviceConfig {
        name: name.into(),
        vendor_id: 0,
        device_id: u8::from(virtio::Id::Net).into(),
        features: features.bits() as u64,
        queues: QUEUES,
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: space.into(),
    }
}

/// Says what the queues can be.
pub fn set_up(task: &Task) -> Result<(), TaskError> {
    (0..QUEUES).try_for_each(|index| {
        task.set_up_queue(QueueSetup {
            index,
            size_max: 256,
            group: 0,
        })
    })
}

impl<B: Below> PacketFilter<B> {
    pub fn new(rules: Rules, below: B) -> Self {
        Self {
            rules,
            dropped: 0,
            lost: 0,
            below,
            merges: false,
            buffers: VecDeque::new(),
            frame: [0; FRAME_MAX],
            waiting: None,
            out: [0; HEADER + FRAME_MAX],
        }
    }

    /// Hands frames of the driver down. How many there were.
    fn send(&mut self, task: &Task) -> Result<usize, TaskError> {
        for sent in 0..BUDGET {
            let Some(job) = task.take(TRANSMIT)? else {
                return Ok(sent);
            };
            let len = task.read(job, 0, &mut self.out)?;
            task.complete(job)?;
            // What is longer than a frame is none.
            let fits = job.readable() == len as u64;
            let frame = self.out.get(HEADER..len).filter(|_| fits);
            match frame.map_or(Verdict::Drop, |frame| self.rules.judge(frame)) {
                Verdict::Accept => self.below.send(&self.out[HEADER..len]),
                Verdict::Drop => self.dropped += 1,
            }
        }
        Ok(BUDGET)
    }

    /// Hands frames from below up. How many there were.
    fn receive(&mut self, task: &Task) -> Result<usize, TaskError> {
        for received in 0..BUDGET {
            while let Some(job) = task.take(RECEIVE)? {
                self.buffers.push_back(job);
            }
            let next = self.waiting.take();
            let Some(len) = next.or_else(|| self.below.receive(&mut self.frame)) else {
                return Ok(received);
            };
            let len = len.min(FRAME_MAX);
            if next.is_none() && self.rules.judge(&self.frame[..len]) == Verdict::Drop {
                self.dropped += 1;
            } else if !self.deliver(task, len)? {
                self.waiting = Some(len);
                return Ok(received);
            }
        }
        Ok(BUDGET)
    }

    /// Puts the frame into as many buffers as it takes (VIRTIO 1.2, 5.1.6.4). False, if there are
    /// not enough.
    fn deliver(&mut self, task: &Task, len: usize) -> Result<bool, TaskError> {
        let needed = (HEADER + len) as u64;
        let (mut room, mut count) = (0_u64, 0_u16);
        while room < needed {
            let Some(job) = self.buffers.get(usize::from(count)) else {
                return Ok(false);
            };
            room = room.saturating_add(job.writable());
            count += 1;
            if !self.merges && room < needed {
                // It must lie in one (VIRTIO 1.2, 5.1.6.4), and buffers are used in their order.
                self.lost += 1;
                return Ok(true);
            }
        }
        let mut bytes = [0; HEADER + FRAME_MAX];
        bytes[NUM_BUFFERS..HEADER].copy_from_slice(&count.to_le_bytes());
        bytes[HEADER..][..len].copy_from_slice(&self.frame[..len]);
        let mut rest = &bytes[..HEADER + len];
        for job in self.buffers.drain(..usize::from(count)) {
            let written = task.write(job, 0, rest)?;
            rest = &rest[written..];
            task.complete(job)?;
        }
        Ok(true)
    }
}

impl<B: Below> TaskDevice for PacketFilter<B> {
    fn start(&mut self, features: Features) {
        self.merges = features.contains(F::MRG_RXBUF);
    }

    fn stop(&mut self) {
        self.buffers.clear();
        self.waiting = None;
    }

    fn let_go(&mut self) {
        self.buffers.clear();
    }

    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        let sent = self.send(task)?;
        task.flush(TRANSMIT)?;
        let received = self.receive(task)?;
        task.flush(RECEIVE)?;
        Ok(if sent.max(received) == BUDGET {
            Turn::More
        } else {
            Turn::Idle
        })
    }
}
