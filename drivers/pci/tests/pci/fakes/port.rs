//! A PCI Express port with a hot-plug capable slot, as PCI Express Base 6.0, 6.7 and 7.5.3 describe
//! it.
//!
//! It cannot interrupt. What a driver must not do is noted as a violation.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use spin::Mutex;
use vdpa::Platform;
use vdpa::testing::FakePlatform;

use super::function::{BarModel, Builder, FakeFunction};
use super::slot::Slot;
use super::tree::FakeBus;

/// Where the capability is: it is the first one.
const CAPABILITY: u16 = 0x40;
const LINK: u16 = CAPABILITY + 0x10;
const CONTROL: u16 = CAPABILITY + 0x18;
const STATUS: u16 = CAPABILITY + 0x1a;
const PORT_CONTROL: u16 = CAPABILITY + 0x28;

pub const BUTTON: u16 = 1 << 0;
pub const POWER_FAULT: u16 = 1 << 1;
pub const PRESENCE_CHANGED: u16 = 1 << 3;
pub const COMMAND_COMPLETED: u16 = 1 << 4;
pub const PRESENT: u16 = 1 << 6;
pub const LINK_CHANGED: u16 = 1 << 8;
const EVENTS: u16 = BUTTON | POWER_FAULT | PRESENCE_CHANGED | COMMAND_COMPLETED | LINK_CHANGED;

const POWER_OFF: u16 = 1 << 10;
pub const POWER_INDICATOR: u16 = 3 << 8;
pub const INDICATOR_ON: u16 = 1 << 8;
pub const INDICATOR_OFF: u16 = 3 << 8;
pub const ATTENTION_INDICATOR: u16 = 3 << 6;
pub const ATTENTION_ON: u16 = 1 << 6;

/// What a card is made of: functions by device and function number.
pub type Card = Vec<(u8, u8, Arc<FakeFunction>)>;

/// How a slot behaves.
#[derive(Clone, Copy)]
pub struct Temper {
    /// From power to an active link; `None`: never.
    pub link: Option<Duration>,
    /// From a command to its completion.
    pub command: Duration,
    /// Power brings a fault.
    pub fault: bool,
}

impl Default for Temper {
    fn default() -> Self {
        Self {
            link: Some(Duration::from_millis(30)),
            command: Duration::from_millis(2),
            fault: false,
        }
    }
}

pub struct FakePort {
    bridge: Arc<FakeFunction>,
    bus: Arc<FakeBus>,
    platform: Arc<FakePlatform>,
    state: Mutex<State>,
}

struct State {
    temper: Temper,
    control: u16,
    status: u16,
    card: Option<Card>,
    linked: bool,
    /// When the power came.
    powered_at: Duration,
    /// When it went; a card needs a second to notice.
    unpowered_at: Option<Duration>,
    /// When the last command is completed.
    completes_at: Option<Duration>,
    violations: Vec<String>,
}

impl FakePort {
    /// An empty slot without power, behind which firmware has put bus 1 and `window`.
    pub fn new(platform: &Arc<FakePlatform>, window: Option<Range<u32>>) -> Arc<Self> {
        let bus = FakeBus::new();
        let mut body = vec![0; 0x3a];
        // A root port with a slot; the link tells of itself; button, power, indicators, surprise,
        // hot-plug.
        body[0..2].copy_from_slice(&0x0142_u16.to_le_bytes());
        body[0x0a..0x0e].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        body[0x12..0x16].copy_from_slice(&0x0008_007b_u32.to_le_bytes());
        // ARI forwarding.
        body[0x22..0x26].copy_from_slice(&0x20_u32.to_le_bytes());
        let builder = Builder::bridge(Arc::clone(&bus))
            .capability(0x10, &body)
            .writable(PORT_CONTROL, &[0x20, 0])
            .set(0x18, &[0, 1, 1]);
        let builder = match window {
            Some(window) => {
                let [_, _, low, high] = window.start.to_le_bytes();
                let [_, _, last_low, last_high] = (window.end - 1).to_le_bytes();
                builder.set(0x20, &[low & 0xf0, high, last_low & 0xf0, last_high])
            }
            None => builder.set(0x20, &[0xf0, 0xff, 0, 0]),
        };
        let state = State {
            temper: Temper::default(),
            control: POWER_OFF | INDICATOR_OFF | ATTENTION_INDICATOR,
            status: 0,
            card: None,
            linked: false,
            powered_at: Duration::ZERO,
            unpowered_at: None,
            completes_at: None,
            violations: Vec::new(),
        };
        Arc::new(Self {
            bridge: builder.build(),
            bus,
            platform: Arc::clone(platform),
            state: Mutex::new(state),
        })
    }

    pub fn set_temper(&self, temper: Temper) {
        self.state.lock().temper = temper;
    }

    /// Puts a card in.
    pub fn insert(&self, card: Card) {
        let mut state = self.state.lock();
        assert!(state.card.is_none(), "the slot is taken");
        state.card = Some(card);
        state.status |= PRESENCE_CHANGED | PRESENT;
        state.powered_at = self.platform.now();
    }

    /// Pulls the card out, in use or not.
    pub fn pull(&self) -> Option<Card> {
        let mut state = self.state.lock();
        let card = state.card.take()?;
        for (.., function) in &card {
            function.pull_out();
        }
        self.bus.clear();
        if state.linked {
            state.status |= LINK_CHANGED;
        }
        state.linked = false;
        state.status = (state.status | PRESENCE_CHANGED) & !PRESENT;
        Some(card)
    }

    /// The bus behind the port.
    pub fn bus(&self) -> &Arc<FakeBus> {
        &self.bus
    }

    /// A card that was there, with power, when the machine was switched on.
    pub fn insert_any(&self, device: u8, number: u8, function: &Arc<impl Slot + 'static>) {
        self.bus.put(device, number, function);
        let mut state = self.state.lock();
        state.card = Some(Card::new());
        state.linked = true;
        state.status |= PRESENT;
        state.control = INDICATOR_ON | ATTENTION_INDICATOR;
    }

    pub fn push_button(&self) {
        self.state.lock().status |= BUTTON;
    }

    pub fn is_powered(&self) -> bool {
        self.state.lock().control & POWER_OFF == 0
    }

    pub fn control(&self) -> u16 {
        self.state.lock().control
    }

    pub fn window(&self) -> Option<Range<u64>> {
        self.bridge.bridge_window()
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    pub fn forwards_ari(&self) -> bool {
        self.bridge.peek16(PORT_CONTROL) & 0x20 != 0
    }

    /// What time has brought.
    fn settled(&self) -> spin::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let now = self.platform.now();
        if state.completes_at.is_some_and(|at| at <= now) {
            state.completes_at = None;
            state.status |= COMMAND_COMPLETED;
        }
        let powered = state.control & POWER_OFF == 0;
        if powered && state.temper.fault {
            state.status |= POWER_FAULT;
        }
        let up = state
            .temper
            .link
            .is_some_and(|after| state.powered_at + after <= now);
        if powered && !state.linked && up && !state.temper.fault && state.card.is_some() {
            state.linked = true;
            state.status |= LINK_CHANGED;
            for (device, number, function) in state.card.iter().flatten() {
                self.bus.put(*device, *number, function);
            }
        }
        state
    }

    fn set_control(&self, control: u16) {
        let mut state = self.settled();
        let now = self.platform.now();
        if state.completes_at.is_some() {
            state
                .violations
                .push("a command before the last one was completed".into());
        }
        state.completes_at = Some(now + state.temper.command);
        let before = state.control & POWER_OFF == 0;
        let after = control & POWER_OFF == 0;
        state.control = control;
        if before && !after {
            state.unpowered_at = Some(now);
            state.status &= !POWER_FAULT;
            if state.linked {
                state.status |= LINK_CHANGED;
            }
            state.linked = false;
            self.bus.clear();
            for (.., function) in state.card.iter().flatten() {
                function.lose_power();
            }
        }
        if after && !before {
            let too_soon = |at: Duration| now < at + Duration::from_secs(1);
            if state.unpowered_at.is_some_and(too_soon) {
                state.violations.push("power again within a second".into());
            }
            state.powered_at = now;
        }
    }

    fn clear_status(&self, ones: u16) {
        self.settled().status &= !(ones & EVENTS);
    }
}

impl Slot for FakePort {
    fn read(&self, offset: u16) -> u32 {
        let state = self.settled();
        let [low, high] = match offset {
            CONTROL => [state.control, state.status],
            LINK => [0, u16::from(state.linked) << 13],
            _ => {
                drop(state);
                return self.bridge.read(offset);
            }
        };
        u32::from(high) << 16 | u32::from(low)
    }

    fn write(&self, offset: u16, value: u32) {
        if offset == CONTROL {
            self.set_control(u16::try_from(value & 0xffff).expect("16 bits"));
            self.clear_status(u16::try_from(value >> 16).expect("16 bits"));
        } else {
            self.bridge.write(offset, value);
        }
    }

    fn write16(&self, offset: u16, value: u16) {
        match offset {
            CONTROL => self.set_control(value),
            STATUS => self.clear_status(value),
            _ => self.bridge.write16(offset, value),
        }
    }

    fn memory(&self) -> Vec<(usize, Range<u64>)> {
        self.bridge.memory()
    }

    fn decodes(&self) -> bool {
        self.bridge.decodes()
    }

    fn model(&self) -> Option<&dyn BarModel> {
        None
    }

    fn behind(&self) -> Option<&Arc<FakeBus>> {
        Some(&self.bus)
    }

    fn bridge_window(&self) -> Option<Range<u64>> {
        self.bridge.bridge_window()
    }
}
