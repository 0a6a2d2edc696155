//! The registers of a virtio function: those of a device by the specification, which lies now and
//! then.

use std::sync::Arc;

use spin::Mutex;

use super::input::Noise;
use super::machine::{MEM64, Registers};

pub const QUEUES: usize = 4;

#[derive(Clone, Copy, Default)]
pub struct Queue {
    pub size: u16,
    pub vector: u16,
    pub enabled: u16,
    /// Descriptors, driver's area, device's area.
    pub areas: [u64; 3],
}

/// What the device is, and what has been written to it.
pub struct State {
    pub features: u64,
    pub queue_count: u16,
    pub size_max: u16,
    pub config: [u8; 64],
    pub generation: u8,
    pub isr: u8,
    pub queues: [Queue; QUEUES],
    /// How many of 256 reads are lies.
    pub lies: u8,
    pub gone: bool,
    /// It refuses interrupt vectors.
    pub refuses_vectors: bool,
    pub noise: Noise,
    status: u8,
    device_feature_select: u32,
    queue_select: u16,
    config_vector: u16,
    table: [u8; 0x1000],
}

impl State {
    pub fn new(seed: u32) -> Self {
        Self {
            features: 0,
            queue_count: 0,
            size_max: 0,
            config: [0; 64],
            generation: 0,
            isr: 0,
            queues: [Queue::default(); QUEUES],
            lies: 0,
            gone: false,
            refuses_vectors: false,
            noise: Noise::new(seed),
            status: 0,
            device_feature_select: 0,
            queue_select: 0,
            config_vector: 0xffff,
            table: [0; 0x1000],
        }
    }

    pub fn reset(&mut self) {
        self.status = 0;
        self.config_vector = 0xffff;
        let fresh = Queue {
            size: self.size_max,
            vector: 0xffff,
            ..Queue::default()
        };
        self.queues = [fresh; QUEUES];
    }

    fn queue(&mut self) -> Option<&mut Queue> {
        let count = usize::from(self.queue_count).min(QUEUES);
        self.queues[..count].get_mut(usize::from(self.queue_select))
    }

    /// A byte of the common structure.
    fn common(&mut self, at: u64) -> u8 {
        let queue = self.queue().copied().unwrap_or_default();
        let word = |shift: u32| (self.features >> shift) & 0xffff_ffff;
        let byte = |value: u64, first: u64| {
            value.to_le_bytes()[usize::try_from(at - first).expect("small")]
        };
        match at {
            0x00..0x04 => byte(self.device_feature_select.into(), 0),
            0x04..0x08 => byte(
                match self.device_feature_select {
                    0 => word(0),
                    1 => word(32),
                    _ => 0,
                },
                4,
            ),
            0x10..0x12 => byte(self.config_vector.into(), 0x10),
            0x12..0x14 => byte(self.queue_count.into(), 0x12),
            0x14 => self.status,
            0x15 => self.generation,
            0x16..0x18 => byte(self.queue_select.into(), 0x16),
            0x18..0x1a => byte(queue.size.into(), 0x18),
            0x1a..0x1c => byte(queue.vector.into(), 0x1a),
            0x1c..0x1e => byte(queue.enabled.into(), 0x1c),
            0x1e..0x20 => byte(self.queue_select.into(), 0x1e),
            0x20..0x28 => byte(queue.areas[0], 0x20),
            0x28..0x30 => byte(queue.areas[1], 0x28),
            0x30..0x38 => byte(queue.areas[2], 0x30),
            _ => 0,
        }
    }

    fn write_common(&mut self, at: u64, value: u32) {
        let low = u16::try_from(value & 0xffff).expect("cut to 16 bits");
        let vector = if self.refuses_vectors { 0xffff } else { low };
        match at {
            0x00 => self.device_feature_select = value,
            0x10 => self.config_vector = vector,
            0x14 => match value & 0xff {
                0 => self.reset(),
                bits => self.status = bits.to_le_bytes()[0],
            },
            0x16 => self.queue_select = low,
            _ => {}
        }
        let Some(queue) = self.queue() else { return };
        match at {
            0x18 => queue.size = low,
            0x1a => queue.vector = vector,
            0x1c => queue.enabled = low,
            0x3a => *queue = Queue::default(),
            0x20..0x38 => {
                let area = &mut queue.areas[usize::try_from((at - 0x20) / 8).expect("small")];
                let (shift, value) = (8 * (at & 4), u64::from(value));
                *area = *area & !(0xffff_ffff << shift) | value << shift;
            }
            _ => {}
        }
    }
}

/// The device, as its memory shows it: the table of MSI-X below 4 GiB, the structures above.
pub struct Device(pub Arc<Mutex<State>>);

impl Registers for Device {
    fn read(&mut self, address: u64, width: usize) -> u32 {
        let mut state = self.0.lock();
        if state.gone {
            return u32::MAX;
        }
        let lies = state.lies;
        if state.noise.lies(lies) {
            return state.noise.next();
        }
        let mut word = 0;
        for index in (0..width as u64).rev() {
            let at = address + index;
            let byte = if at < MEM64 {
                state.table[usize::try_from(at & 0xfff).expect("small")]
            } else {
                match at & 0x3000 {
                    0x0000 => state.common(at & 0xfff),
                    0x1000 => core::mem::take(&mut state.isr),
                    0x2000 => {
                        let at = usize::try_from(at & 0xfff).expect("small");
                        state.config.get(at).copied().unwrap_or(0)
                    }
                    _ => 0,
                }
            };
            word = word << 8 | u32::from(byte);
        }
        word
    }

    fn write(&mut self, address: u64, width: usize, value: u32) {
        let mut state = self.0.lock();
        if address < MEM64 {
            let at = usize::try_from(address & 0xfff).expect("small");
            for (at, byte) in (at..0x1000).zip(&value.to_le_bytes()[..width]) {
                state.table[at] = *byte;
            }
        } else if address & 0x3000 == 0 {
            state.write_common(address & 0xfff, value);
        }
    }
}
