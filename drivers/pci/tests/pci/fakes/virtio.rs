//! A modern virtio function: registers as VIRTIO 1.2, 4.1.4 has them, with MSI-X.
//!
//! BAR 1 holds the MSI-X table, BAR 4 the virtio structures. Accesses in a width that the
//! specification forbids, and other things that a driver must not do, are noted as violations.

use std::sync::{Arc, OnceLock};

use spin::Mutex;
use vdpa::platform::InterruptMessage;
use vdpa::testing::FakePlatform;
use virtq::{Doorbell, Event};

use super::function::{BUS_MASTER, BarModel, BarType, Builder, FakeFunction};
use super::registers::{Entry, Generation, State};

pub const COMMON: u32 = 0x0000;
pub const ISR: u32 = 0x1000;
pub const DEVICE: u32 = 0x2000;
pub const NOTIFY: u32 = 0x3000;
pub const BAR4_SIZE: u64 = 0x4000;
const BAR1_SIZE: u64 = 0x1000;
pub const MULTIPLIER: u32 = 4;
const MSIX_PENDING: u32 = 0x800;

/// A vendor capability.
#[derive(Clone, Copy)]
pub struct VirtioCap {
    pub kind: u8,
    pub cap_len: u8,
    pub bar: u8,
    pub offset: u32,
    pub length: u32,
    pub multiplier: u32,
}

impl VirtioCap {
    pub const fn new(kind: u8, offset: u32, length: u32) -> Self {
        let cap_len = if kind == 2 { 20 } else { 16 };
        Self {
            kind,
            cap_len,
            bar: 4,
            offset,
            length,
            multiplier: MULTIPLIER,
        }
    }

    /// Those of QEMU's devices.
    pub fn usual() -> Vec<Self> {
        vec![
            Self::new(1, COMMON, 0x1000),
            Self::new(3, ISR, 0x1000),
            Self::new(4, DEVICE, 0x1000),
            Self::new(2, NOTIFY, 0x1000),
        ]
    }

    fn body(&self) -> Vec<u8> {
        let mut body = vec![self.cap_len, self.kind, self.bar, 0, 0, 0];
        body.extend(self.offset.to_le_bytes());
        body.extend(self.length.to_le_bytes());
        if self.cap_len > 16 {
            body.extend(self.multiplier.to_le_bytes());
        }
        body
    }
}

/// What a test decides about a device before it is made.
#[derive(Clone)]
pub struct Plan {
    pub device: u16,
    pub subvendor: u16,
    pub subdevice: u16,
    pub features: u128,
    pub queues: Vec<u16>,
    /// MSI-X entries; 0 for no MSI-X.
    pub vectors: u16,
    pub capabilities: Vec<VirtioCap>,
    pub config: Vec<u8>,
    pub bar4: BarType,
    pub bar4_size: u64,
}

impl Plan {
    pub fn features(&self) -> vdpa::Features {
        vdpa::Features::from_bits(self.features)
    }
}

impl Default for Plan {
    /// A network device with three queues.
    fn default() -> Self {
        Self {
            device: 0x1000,
            subvendor: 0x1af4,
            subdevice: 1,
            features: version_1(),
            queues: vec![256, 256, 64],
            vectors: 4,
            capabilities: VirtioCap::usual(),
            config: (0..16).collect(),
            bar4: BarType::Prefetchable64,
            bar4_size: BAR4_SIZE,
        }
    }
}

pub fn version_1() -> u128 {
    vdpa::Features::from(virtio::F::VERSION_1).bits()
}

/// `VERSION_1`, and what the fields of a network device come with.
pub fn net_fields() -> u128 {
    use virtio::net::F;
    let fields = F::MAC | F::STATUS | F::MQ | F::MTU | F::SPEED_DUPLEX | F::RSS;
    version_1() | vdpa::Features::from(fields).bits()
}

pub fn ring_reset() -> u128 {
    vdpa::Features::from(virtio::F::RING_RESET).bits()
}

pub fn access_platform() -> u128 {
    vdpa::Features::from(virtio::F::ACCESS_PLATFORM).bits()
}

pub fn suspend() -> u128 {
    vdpa::Features::from(virtio::F::SUSPEND).bits()
}

pub struct FakeVirtio {
    pub function: OnceLock<Arc<FakeFunction>>,
    plan: Plan,
    pub state: Mutex<State>,
    kicks: Vec<Arc<Event>>,
}

impl FakeVirtio {
    /// The device and the function that it sits in.
    pub fn new(plan: Plan) -> (Arc<Self>, Arc<FakeFunction>) {
        let state = State::new(&plan);
        let kicks = plan.queues.iter().map(|_| Arc::default()).collect();
        let device = Arc::new(Self {
            function: OnceLock::new(),
            plan,
            state: Mutex::new(state),
            kicks,
        });
        let plan = &device.plan;
        let mut builder = Builder::endpoint(0x1af4, plan.device)
            .class(0x02_0000)
            .subsystem(plan.subvendor, plan.subdevice)
            .bar(1, BAR1_SIZE, BarType::Memory32)
            .bar(4, plan.bar4_size, plan.bar4);
        if plan.vectors > 0 {
            builder = builder.msix(plan.vectors, 1, MSIX_PENDING | 1);
        }
        for capability in &plan.capabilities {
            builder = builder.capability(9, &capability.body());
        }
        let function = builder.model(Arc::clone(&device) as _).build();
        device
            .function
            .set(Arc::clone(&function))
            .ok()
            .expect("set once");
        (device, function)
    }

    fn function(&self) -> &Arc<FakeFunction> {
        self.function.get().expect("set by `new`")
    }

    /// How often a queue was notified.
    pub fn kicks(&self, queue: usize) -> u64 {
        self.kicks[queue].count()
    }

    /// The device has used buffers of a queue.
    pub fn interrupt_queue(&self, queue: usize, platform: &FakePlatform) {
        let vector = self.state.lock().queues[queue].interrupt();
        self.interrupt(vector, 1, platform);
    }

    /// The device changes its configuration and says so.
    pub fn change_config(&self, platform: &FakePlatform) {
        {
            let mut state = self.state.lock();
            state.counter = state.counter.wrapping_add(1);
        }
        self.interrupt_config(platform);
    }

    /// The device has changed its configuration.
    pub fn interrupt_config(&self, platform: &FakePlatform) {
        let vector = self.state.lock().config_vector;
        self.interrupt(vector, 2, platform);
    }

    /// VIRTIO 1.2, 4.1.5.3 and 4.1.5.4: a message, or the ISR status without MSI-X.
    fn interrupt(&self, vector: u16, reason: u8, platform: &FakePlatform) {
        let Some(control) = self.msix_control() else {
            self.state.lock().isr |= reason;
            return;
        };
        if control & 0x8000 == 0 {
            self.state.lock().isr |= reason;
            return;
        }
        let entry = self.state.lock().table.get(usize::from(vector)).copied();
        let masked = control & 0x4000 != 0 || entry.is_none_or(Entry::is_masked);
        let master = self.function().command() & BUS_MASTER != 0;
        if let Some(Entry {
            words: [low, high, data, _],
        }) = entry
            && !masked
            && master
        {
            let address = (u64::from(high) << 32) | u64::from(low);
            platform.fire(InterruptMessage { address, data });
        }
    }

    /// The message control word of MSI-X; its capability is the first.
    fn msix_control(&self) -> Option<u16> {
        (self.plan.vectors > 0).then(|| self.function().peek16(0x42))
    }

    pub fn is_msix_enabled(&self) -> bool {
        self.msix_control()
            .is_some_and(|control| control & 0x8000 != 0)
    }

    /// The entries of the MSI-X table that are not masked.
    pub fn unmasked(&self) -> usize {
        self.state
            .lock()
            .table
            .iter()
            .filter(|entry| !entry.is_masked())
            .count()
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }
}

impl BarModel for FakeVirtio {
    fn read(&self, bar: usize, offset: u64, width: u8) -> u32 {
        let mut state = self.state.lock();
        let at = u32::try_from(offset).expect("inside the BAR");
        match (bar, at) {
            (1, at) => {
                let entry = state.table.get(usize::try_from(at / 16).expect("small"));
                entry.map_or(0, |entry| {
                    entry.words[usize::try_from(at / 4 % 4).expect("small")]
                })
            }
            (_, ISR) => u32::from(std::mem::take(&mut state.isr)),
            (_, COMMON..ISR) => state.read_common(&self.plan, offset, width),
            (_, DEVICE..NOTIFY) => {
                state.config_reads.push(width);
                if let Generation::Changes(left) = state.generation
                    && left > 0
                {
                    state.generation = Generation::Changes(left - 1);
                    state.counter = state.counter.wrapping_add(1);
                }
                let xor = state.config_xor;
                let byte = |at: usize| self.plan.config.get(at).map_or(0, |byte| byte ^ xor);
                let start = usize::try_from(at - DEVICE).expect("small");
                (0..usize::from(width))
                    .rev()
                    .fold(0, |value, n| (value << 8) | u32::from(byte(start + n)))
            }
            _ => 0,
        }
    }

    fn write(&self, bar: usize, offset: u64, width: u8, value: u32) {
        let mut state = self.state.lock();
        let at = u32::try_from(offset).expect("inside the BAR");
        match (bar, at) {
            (1, at) => {
                let function_masked = self.msix_control().is_some_and(|word| word & 0x4000 != 0);
                let index = usize::try_from(at / 16).expect("small");
                let word = usize::try_from(at / 4 % 4).expect("small");
                let Some(entry) = state.table.get_mut(index) else {
                    return;
                };
                let editing = word < 3;
                let masked = entry.is_masked() && function_masked;
                entry.words[word] = value;
                if editing && !masked {
                    state
                        .violations
                        .push("an MSI-X entry edited unmasked".into());
                }
            }
            (_, COMMON..ISR) => state.write_common(&self.plan, offset, width, value),
            _ => {}
        }
    }

    fn doorbell(&self, bar: usize, offset: u64, index: u16) -> Option<Doorbell> {
        let mut notify = self.plan.capabilities.iter();
        let notify = notify.find(|capability| capability.kind == 2)?;
        let expected = u64::from(notify.offset) + u64::from(index) * u64::from(notify.multiplier);
        let right = bar == 4 && offset == expected;
        right.then(|| Doorbell::event(Arc::clone(&self.kicks[usize::from(index)])))
    }
}
