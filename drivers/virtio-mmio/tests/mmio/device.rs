//! A virtio device with registers as VIRTIO 1.2, 4.2.2 has them.

use std::fmt;
use std::sync::Arc;

use spin::Mutex;
use vdpa::ops::QueueAddress;
use vdpa::platform::{InterruptLine, Mmio, PhysAddr, Signal};
use vdpa::testing::FakePlatform;
use virtio_mmio::Description;
use virtq::{DmaAddr, Doorbell, Event, NotifyFormat};

pub const BASE: u64 = 0xd000_0000;
pub const SIZE: u64 = 0x200;
pub const LINE: u32 = 5;
const CONFIG: u64 = 0x100;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// What a test decides about a device before it is made.
#[derive(Clone)]
pub struct Plan {
    pub magic: u32,
    pub version: u32,
    pub device_id: u32,
    pub features: u128,
    /// How much of the selector of a word of the features it decodes.
    pub decodes: Decodes,
    pub queues: Vec<u32>,
    /// What it does when 0 is written to its status.
    pub reset: Reset,
    /// Whether it knows the register that resets a queue.
    pub has_queue_reset: bool,
    /// The status that firmware has left.
    pub status: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decodes {
    Selector,
    /// As QEMU's devices: whether it is 0.
    Zero,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    Works,
    /// As Firecracker's devices: not once they have run.
    BeforeDriverOk,
    Never,
}

impl Default for Plan {
    /// A network device with two queues.
    fn default() -> Self {
        Self {
            magic: 0x7472_6976,
            version: 2,
            device_id: 1,
            features: feature(virtio::F::VERSION_1),
            decodes: Decodes::Selector,
            queues: vec![256, 256],
            reset: Reset::Works,
            has_queue_reset: true,
            status: 0,
        }
    }
}

pub fn feature(feature: virtio::F) -> u128 {
    vdpa::Features::from(feature).bits()
}

#[derive(Clone, Default)]
pub struct Queue {
    pub size: u32,
    pub words: [u32; 6],
    pub ready: bool,
}

impl Queue {
    pub fn address(&self) -> QueueAddress {
        let address =
            |at: usize| DmaAddr(u64::from(self.words[at]) | u64::from(self.words[at + 1]) << 32);
        QueueAddress {
            descriptor: address(0),
            driver: address(2),
            device: address(4),
        }
    }
}

#[derive(Default)]
pub struct State {
    pub status: u32,
    pub driver_features: u128,
    pub queues: Vec<Queue>,
    pub resets: u32,
    pub isr: u32,
    pub generation: u32,
    /// How many reads of the generation change it.
    pub unsettled: u32,
    pub config: Vec<u8>,
    /// Nobody answers any more.
    pub gone: bool,
    pub formats: Vec<NotifyFormat>,
    device_select: u32,
    driver_select: u32,
    queue_select: u32,
    violations: Vec<String>,
}

pub struct FakeDevice {
    plan: Plan,
    pub state: Mutex<State>,
    pub kicks: Vec<Arc<Event>>,
}

impl FakeDevice {
    /// The device, at its place in the machine.
    pub fn new(platform: &FakePlatform, plan: Plan) -> Arc<Self> {
        let state = State {
            status: plan.status,
            queues: vec![Queue::default(); plan.queues.len()],
            config: (0..0x100).map(|byte| u8::try_from(byte).unwrap()).collect(),
            ..State::default()
        };
        let device = Arc::new(Self {
            kicks: plan.queues.iter().map(|_| Arc::default()).collect(),
            plan,
            state: Mutex::new(state),
        });
        platform.add_mmio(PhysAddr(BASE), Arc::clone(&device) as _);
        device
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    pub fn interrupt(&self, reason: u32, platform: &FakePlatform) {
        self.state.lock().isr |= reason;
        platform.raise_line(LINE);
    }

    pub fn change_config(&self, platform: &FakePlatform) {
        self.state.lock().generation += 1;
        self.interrupt(2, platform);
    }

    fn set_status(&self, state: &mut State, value: u32) {
        if value == 0 {
            let refuses = match self.plan.reset {
                Reset::Works => false,
                Reset::BeforeDriverOk => state.status & DRIVER_OK != 0,
                Reset::Never => true,
            };
            if refuses {
                if self.plan.reset == Reset::BeforeDriverOk {
                    state.status |= 0x80;
                }
                return;
            }
            let queues = state.queues.len();
            state.queues = vec![Queue::default(); queues];
            (state.status, state.driver_features, state.isr) = (0, 0, 0);
            state.resets += 1;
            return;
        }
        let added = value & !state.status;
        let order = match added {
            ACKNOWLEDGE => state.status == 0,
            DRIVER => state.status == ACKNOWLEDGE,
            FEATURES_OK => state.status == ACKNOWLEDGE | DRIVER,
            DRIVER_OK => state.status == ACKNOWLEDGE | DRIVER | FEATURES_OK,
            _ => true,
        };
        if !order || state.status & !value != 0 {
            let was = state.status;
            state
                .violations
                .push(format!("3.1.1: status {value:#x} after {was:#x}"));
        }
        if added == FEATURES_OK && state.driver_features & !self.plan.features != 0 {
            return;
        }
        state.status = value;
    }

    /// A word of the features.
    fn word(&self, select: u32) -> u32 {
        let select = match self.plan.decodes {
            Decodes::Selector => select as usize,
            Decodes::Zero => usize::from(select != 0),
        };
        let words = vdpa::Features::from_bits(self.plan.features).words();
        words.get(select).copied().unwrap_or(0)
    }

    fn write_queue(&self, state: &mut State, offset: u64, value: u32) {
        let select = state.queue_select as usize;
        let told = state.status & FEATURES_OK != 0;
        let Some(queue) = state.queues.get_mut(select) else {
            return;
        };
        let fault = match offset {
            0x44 if value == 1 && (queue.size == 0 || !told) => Some("ready too early"),
            0x44 if value != 1 => Some("stopped by QueueReady"),
            0x38 | 0x80..=0xa4 if queue.ready => Some("changed while ready"),
            _ => None,
        };
        match offset {
            0x38 => queue.size = value,
            0x44 => queue.ready = value & 1 != 0,
            0x80 => queue.words[0] = value,
            0x84 => queue.words[1] = value,
            0x90 => queue.words[2] = value,
            0x94 => queue.words[3] = value,
            0xa0 => queue.words[4] = value,
            0xa4 => queue.words[5] = value,
            0xc0 if self.plan.has_queue_reset => *queue = Queue::default(),
            _ => {}
        }
        if let Some(fault) = fault {
            state
                .violations
                .push(format!("4.2.2.2: queue {select} {fault}"));
        }
    }
}

// SAFETY: there is no memory behind the registers but that of tests.
unsafe impl Mmio for FakeDevice {
    fn len(&self) -> u64 {
        SIZE
    }

    fn read8(&self, offset: u64) -> u8 {
        let mut state = self.state.lock();
        if offset < CONFIG {
            state
                .violations
                .push(format!("4.2.2.2: a byte at {offset:#x}"));
        }
        let byte = state.config.get((offset.wrapping_sub(CONFIG)) as usize);
        if state.gone {
            u8::MAX
        } else {
            byte.copied().unwrap_or(u8::MAX)
        }
    }

    fn read16(&self, offset: u64) -> u16 {
        u16::from_le_bytes([self.read8(offset), self.read8(offset + 1)])
    }

    fn read32(&self, offset: u64) -> u32 {
        if offset >= CONFIG {
            let word = [0, 1, 2, 3].map(|at| self.read8(offset + at));
            return u32::from_le_bytes(word);
        }
        let mut state = self.state.lock();
        if state.gone {
            return u32::MAX;
        }
        let select = state.queue_select as usize;
        let queue = state.queues.get(select).cloned().unwrap_or_default();
        match offset {
            0x00 => self.plan.magic,
            0x04 => self.plan.version,
            0x08 => self.plan.device_id,
            0x0c => 0x554d_4551,
            0x10 => {
                if state.status & DRIVER == 0 {
                    state
                        .violations
                        .push("3.1.1: features before DRIVER".into());
                }
                self.word(state.device_select)
            }
            0x34 => self.plan.queues.get(select).copied().unwrap_or(0),
            0x44 => queue.ready.into(),
            0x60 => state.isr,
            0x70 => state.status,
            0xc0 => 0,
            0xfc => {
                if state.unsettled > 0 {
                    state.unsettled -= 1;
                    state.generation += 1;
                }
                state.generation
            }
            _ => {
                state
                    .violations
                    .push(format!("4.2.2.2: {offset:#x} is read"));
                0
            }
        }
    }

    unsafe fn write8(&self, offset: u64, value: u8) {
        let mut state = self.state.lock();
        match state.config.get_mut((offset.wrapping_sub(CONFIG)) as usize) {
            Some(byte) => *byte = value,
            None => state
                .violations
                .push(format!("4.2.2.2: a byte at {offset:#x}")),
        }
    }

    unsafe fn write16(&self, offset: u64, value: u16) {
        for (at, byte) in (offset..).zip(value.to_le_bytes()) {
            // SAFETY: passed on to the caller.
            unsafe { self.write8(at, byte) };
        }
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        if offset >= CONFIG {
            for (at, byte) in (offset..).zip(value.to_le_bytes()) {
                // SAFETY: passed on to the caller.
                unsafe { self.write8(at, byte) };
            }
            return;
        }
        let state = &mut *self.state.lock();
        match offset {
            0x14 => state.device_select = value,
            0x24 => state.driver_select = value,
            0x20 => {
                if state.status & (DRIVER | FEATURES_OK) != DRIVER {
                    state
                        .violations
                        .push("3.1.1: features written too early or late".into());
                }
                let select = state.driver_select;
                if select >= 2 && self.word(select) == 0 {
                    let violation = format!("2.2.1: word {select} is not offered");
                    state.violations.push(violation);
                    return;
                }
                let shift = 32 * select;
                let kept = state.driver_features & !(0xffff_ffff << shift);
                state.driver_features = kept | u128::from(value) << shift;
            }
            0x30 => state.queue_select = value,
            0x64 => state.isr &= !value,
            0x70 => self.set_status(state, value),
            0x38 | 0x44 | 0x80..=0xa4 | 0xc0 => self.write_queue(state, offset, value),
            _ => state
                .violations
                .push(format!("4.2.2.2: {offset:#x} is written")),
        }
    }

    unsafe fn doorbell(&self, offset: u64, index: u16, format: NotifyFormat) -> Option<Doorbell> {
        assert_eq!(offset, 0x50);
        self.state.lock().formats.push(format);
        let kick = self.kicks.get(usize::from(index))?;
        Some(Doorbell::event(Arc::clone(kick)))
    }
}

impl fmt::Debug for FakeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeDevice")
    }
}

pub fn description() -> Description {
    Description {
        base: PhysAddr(BASE),
        size: SIZE,
        line: InterruptLine {
            number: LINE,
            signal: Signal::Unstated,
        },
    }
}
