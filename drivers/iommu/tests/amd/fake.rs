//! An AMD IOMMU as its specification has it (48882), at the level of registers and memory.
//!
//! It remembers whatever it may remember until it is told to forget it: device table entries,
//! translations, what leads to page tables, interrupts. It walks memory, so tables that have been
//! given back are noticed.

mod caches;
mod commands;
mod log;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use iommu::amd::ConfigSpace;
use vdpa::platform::{InterruptMessage, Mmio};
use vdpa::testing::FakePlatform;
use virtq::testing::HeapDma;
use virtq::{DmaAddr, Doorbell, NotifyFormat};

use self::caches::Caches;
pub use self::walk::Refused;

pub const IA_SUP: u64 = 1 << 6;
pub const GA_SUP: u64 = 1 << 7;
pub const XT_SUP: u64 = 1 << 2;
pub const MSI_CAP_MMIO_SUP: u64 = 1 << 46;

const DEVICE_TABLE: u64 = 0x0;
const COMMAND_BASE: u64 = 0x8;
const EVENT_BASE: u64 = 0x10;
const CONTROL: u64 = 0x18;
const FEATURES: u64 = 0x30;
const EVENT_INTERRUPT: u64 = 0x170;
const COMMAND_HEAD: u64 = 0x2000;
const COMMAND_TAIL: u64 = 0x2008;
const EVENT_HEAD: u64 = 0x2010;
const EVENT_TAIL: u64 = 0x2018;
const STATUS: u64 = 0x2020;

const IOMMU_EN: u64 = 1 << 0;
const EVENT_LOG_EN: u64 = 1 << 2;
const EVENT_INT_EN: u64 = 1 << 3;
const CMD_BUF_EN: u64 = 1 << 12;
const GA_EN: u64 = 1 << 17;
const XT_EN: u64 = 1 << 50;
const INT_CAP_XT_EN: u64 = 1 << 51;

const EVENT_OVERFLOW: u64 = 1 << 0;
const EVENT_LOG_INT: u64 = 1 << 1;
const EVENT_LOG_RUN: u64 = 1 << 3;
const CMD_BUF_RUN: u64 = 1 << 4;

const CAPABILITY: u16 = 0x40;
const MSI: u16 = 0x64;

/// What the IOMMU is like.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub features: u64,
    pub np_cache: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defect {
    #[default]
    None,
    /// It does nothing any more.
    Stuck,
    /// It finds the next command illegal.
    IllegalCommand,
    /// It goes on when it is told to stop.
    NeverStops,
}

pub struct FakeAmdVi {
    model: Model,
    memory: Arc<HeapDma>,
    platform: Weak<FakePlatform>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    registers: BTreeMap<u64, u64>,
    config: BTreeMap<u16, u32>,
    caches: Caches,
    defect: Defect,
    halted: bool,
    /// `COMPLETION_WAIT` commands so far.
    waits: usize,
    /// What a driver must not do.
    violations: Vec<String>,
    /// Devices that read an address whatever happens, and where that has led them.
    restless: Vec<(u16, u64)>,
    reached: BTreeSet<(u16, u64)>,
    /// Interrupts that are to be sent once the lock is free.
    pending: Vec<InterruptMessage>,
}

impl State {
    fn register(&self, at: u64) -> u64 {
        self.registers.get(&at).copied().unwrap_or(0)
    }

    fn set(&mut self, at: u64, value: u64) {
        self.registers.insert(at, value);
    }

    fn control(&self, bits: u64) -> bool {
        self.register(CONTROL) & bits == bits
    }

    fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }
}

impl FakeAmdVi {
    pub fn new(platform: &Arc<FakePlatform>, model: Model) -> Arc<Self> {
        let mut state = State::default();
        state.set(FEATURES, model.features);
        let np_cache = u32::from(model.np_cache) << 26;
        state.config.extend([
            (0x04, 0x0010_0000),
            (0x34, CAPABILITY.into()),
            (CAPABILITY, 0x0803_000f | u32::from(MSI) << 8 | np_cache),
            (MSI, 0x0080_0005),
        ]);
        Arc::new(Self {
            model,
            memory: Arc::clone(platform.heap()),
            platform: Arc::downgrade(platform),
            state: Mutex::new(state),
        })
    }

    /// As firmware leaves it that has used it.
    pub fn left_on(&self) {
        let mut state = self.lock();
        state.set(CONTROL, IOMMU_EN | EVENT_LOG_EN | EVENT_INT_EN | CMD_BUF_EN);
        state.set(STATUS, EVENT_LOG_RUN | CMD_BUF_RUN);
        state.set(EVENT_TAIL, 0x40);
        state.set(COMMAND_BASE, 9 << 56);
        state.set(COMMAND_TAIL, 0x40);
        state.set(COMMAND_HEAD, 0x40);
        state.caches.remember_firmware();
    }

    pub fn set_defect(&self, defect: Defect) {
        self.lock().defect = defect;
    }

    /// From now on the device reads the address between any two commands.
    pub fn make_restless(&self, device: u16, addr: u64) {
        self.lock().restless.push((device, addr));
    }

    /// Where that has led it.
    pub fn reached(&self, device: u16) -> Vec<u64> {
        let state = self.lock();
        let reached = state.reached.iter().filter(|(id, _)| *id == device);
        reached.map(|(_, addr)| *addr).collect()
    }

    pub fn waits(&self) -> usize {
        self.lock().waits
    }

    pub fn is_enabled(&self) -> bool {
        self.lock().control(IOMMU_EN)
    }

    pub fn control(&self) -> u64 {
        self.lock().register(CONTROL)
    }

    pub fn config(&self, offset: u16) -> u32 {
        self.lock().config.get(&offset).copied().unwrap_or(0)
    }

    /// What the driver has done that it must not do.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends an access: the interrupts go out that it has caused.
    fn finish(&self, mut state: MutexGuard<'_, State>) {
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        if let Some(platform) = self.platform.upgrade() {
            for message in pending {
                platform.fire(message);
            }
        }
    }

    /// Reads memory that the driver has said is the IOMMU's.
    fn read_word(&self, state: &mut State, at: u64, what: &str) -> u64 {
        let mut bytes = [0; 8];
        if self.memory.read(DmaAddr(at), &mut bytes).is_err() {
            state.violation(format!("{what} at {at:#x} has been given back"));
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&self, at: u64, value: u32) {
        let mut state = self.lock();
        let register = at & !7;
        let old = state.register(register);
        let shift = (at & 4) * 8;
        let new = old & !(0xffff_ffff << shift) | u64::from(value) << shift;
        match register {
            STATUS => {
                let cleared = u64::from(value) & (EVENT_OVERFLOW | EVENT_LOG_INT);
                state.set(STATUS, old & !cleared);
            }
            FEATURES => state.violation("the feature register is written"),
            CONTROL => self.write_control(&mut state, old, new),
            DEVICE_TABLE | COMMAND_BASE | EVENT_BASE | EVENT_INTERRUPT => {
                if state.control(IOMMU_EN) {
                    state.violation(format!("register {register:#x} is written while it is on"));
                }
                state.set(register, new);
            }
            COMMAND_TAIL => {
                state.set(COMMAND_TAIL, new);
                self.run_commands(&mut state);
            }
            _ => state.set(register, new),
        }
        self.finish(state);
    }

    fn write_control(&self, state: &mut State, old: u64, new: u64) {
        let on = |bits| new & bits != 0;
        if old & IOMMU_EN != 0 && !on(IOMMU_EN) && on(CMD_BUF_EN | EVENT_LOG_EN) {
            state.violation("it is turned off before what depends on it");
        }
        let unknown = [
            (GA_EN, GA_SUP),
            (XT_EN, XT_SUP),
            (INT_CAP_XT_EN, XT_SUP | MSI_CAP_MMIO_SUP),
        ];
        for (bit, needed) in unknown {
            if on(bit) && self.model.features & needed != needed {
                state.violation(format!("control bit {bit:#x} is reserved here"));
            }
        }
        if old & new & IOMMU_EN != 0 && (old ^ new) & (GA_EN | XT_EN) != 0 {
            state.violation("the format of interrupts changes while it is on");
        }
        state.set(CONTROL, new);
        let mut status = state.register(STATUS);
        for (enable, run) in [(CMD_BUF_EN, CMD_BUF_RUN), (EVENT_LOG_EN, EVENT_LOG_RUN)] {
            if on(IOMMU_EN) && on(enable) && !(run == CMD_BUF_RUN && state.halted) {
                status |= run;
            } else if state.defect != Defect::NeverStops {
                status &= !run;
            }
        }
        state.set(STATUS, status);
        self.run_commands(state);
    }
}

// SAFETY: the registers are those of a fake, which reaches a fake's memory.
unsafe impl Mmio for FakeAmdVi {
    fn len(&self) -> u64 {
        0x4000
    }

    fn read8(&self, _offset: u64) -> u8 {
        panic!("registers are read in four bytes")
    }

    fn read16(&self, _offset: u64) -> u16 {
        panic!("registers are read in four bytes")
    }

    fn read32(&self, offset: u64) -> u32 {
        // Time passes for who waits.
        if offset == STATUS
            && let Some(platform) = self.platform.upgrade()
        {
            platform.advance(Duration::from_millis(1));
        }
        (self.lock().register(offset & !7) >> ((offset & 4) * 8)) as u32
    }

    unsafe fn write8(&self, _offset: u64, _value: u8) {
        panic!("registers are written in four bytes")
    }

    unsafe fn write16(&self, _offset: u64, _value: u16) {
        panic!("registers are written in four bytes")
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        self.write(offset, value);
    }

    unsafe fn doorbell(&self, _: u64, _: u16, _: NotifyFormat) -> Option<Doorbell> {
        None
    }
}

impl ConfigSpace for FakeAmdVi {
    fn read(&self, offset: u16) -> u32 {
        assert!(offset.is_multiple_of(4));
        self.config(offset)
    }

    unsafe fn write(&self, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4));
        self.lock().config.insert(offset, value);
    }
}

impl std::fmt::Debug for FakeAmdVi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeAmdVi").finish_non_exhaustive()
    }
}
