//! The inside of a card: which register an access goes to, and what follows from it.

use std::sync::Arc;

use virtq::Event;

use crate::GuestMemory;
use crate::card::{Counters, Function, Served};
use crate::common::{Action, Common, Context, DRIVER_OK, FAILED, NEEDS_RESET, NO_VECTOR};
use crate::config_access::ConfigAccess;
use crate::config_space::{ConfigSpace, Effect};
use crate::engine::{Engine, Trouble};
use crate::migration::Block;
use crate::msix::{Message, Table};
use crate::net::NetSettings;
use crate::pages::Pages;
use crate::places::{BLOCK_BAR, MSIX_BAR, Places, Structure};
use crate::plan::{BlkStop, Faults, Generation, MsixTable, Plan, bits};
use crate::product::Kind;
use crate::violations::Violations;

/// Of the ISR status (VIRTIO 1.2, 4.1.4.5): a queue, and the configuration.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Everything behind the card's lock.
pub(crate) struct State {
    pub(crate) plan: Plan,
    pub(crate) places: Places,
    pub(crate) faults: Faults,
    pub(crate) violations: Violations,
    pub(crate) space: ConfigSpace,
    pub(crate) table: Table,
    pub(crate) common: Common,
    pub(crate) isr: u8,
    pub(crate) generation: u8,
    /// The device-specific configuration.
    pub(crate) config: Vec<u8>,
    pub(crate) block: Option<Block>,
    pub(crate) engines: Vec<Option<Engine>>,
    pub(crate) kicks: Vec<Arc<Event>>,
    /// How often each queue had been notified when that was last checked.
    pub(crate) kicks_seen: Vec<u64>,
    /// How the device-specific configuration is being read.
    pub(crate) config_access: ConfigAccess,
    pub(crate) function: Function,
    pub(crate) settings: NetSettings,
    pub(crate) memory: GuestMemory,
    pub(crate) pages: Pages,
    pub(crate) counters: Counters,
    pub(crate) present: bool,
    /// Interrupts to send when the lock is free.
    pub(crate) due: Vec<(u16, Message)>,
}

impl State {
    /// Counts a register access. False, if nobody answers.
    pub(crate) fn answers(&mut self) -> bool {
        self.check_kicks();
        self.counters.accesses += 1;
        match &mut self.faults.gone_after {
            Some(0) => self.remove(),
            Some(left) => *left -= 1,
            None => {}
        }
        self.present
    }

    pub(crate) fn remove(&mut self) {
        self.present = false;
        self.engines.fill_with(|| None);
        self.due.clear();
    }

    pub(crate) fn write_config(&mut self, offset: u16, bytes: &[u8]) {
        if self.space.write(offset, bytes, &mut self.violations) == Effect::Reset {
            self.reset_function();
        }
        self.flush();
    }

    /// PCI Express Base 6.0, 6.6.2.
    pub(crate) fn reset_function(&mut self) {
        self.counters.function_resets += 1;
        self.space.reset();
        self.table.reset();
        self.block = self
            .block
            .as_ref()
            .map(|block| Block::new(block.layout(), self.plan.queue_count()));
        self.reset();
        self.common.zero_read = true;
    }

    /// The device is as it was when it was made.
    fn reset(&mut self) {
        self.counters.resets += 1;
        self.common = Common::new(&self.plan);
        self.common.was_reset = true;
        self.isr = 0;
        self.settings = NetSettings::new(&self.plan);
        self.engines.fill_with(|| None);
        if let Some(block) = &mut self.block {
            block.reset();
        }
    }

    pub(crate) fn read_bar(&mut self, bar: u8, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0xff);
        let width = bytes.len();
        let in_reach = self.space.decodes() && offset < self.places.bar_size(bar);
        if !in_reach {
            self.violations
                .note(format!("BAR {bar} read at {offset:#x}"));
            return;
        }
        if width == 8 && matches!(bar, MSIX_BAR) {
            for (at, half) in (offset..).step_by(4).zip(bytes.chunks_exact_mut(4)) {
                half.copy_from_slice(&self.table.read(at).to_le_bytes());
            }
            return;
        }
        if !matches!(width, 1 | 2 | 4) || !offset.is_multiple_of(width as u64) {
            let note = format!("{width} bytes read at {offset:#x} of BAR {bar}");
            self.violations.note(note);
            return;
        }
        let value = match bar {
            _ if bar == self.places.bar => self.read_structure(offset, width),
            MSIX_BAR if width == 4 => self.table.read(offset),
            BLOCK_BAR => match &self.block {
                Some(block) => block.read(offset, width, &mut self.violations),
                None => u32::MAX,
            },
            _ => u32::MAX,
        };
        bytes.copy_from_slice(&value.to_le_bytes()[..width]);
    }

    fn read_structure(&mut self, offset: u64, width: usize) -> u32 {
        match self.places.structure(offset) {
            Some((Structure::Common, at)) => {
                let mut cx = Context {
                    plan: &self.plan,
                    faults: &self.faults,
                    generation: self.generation,
                    violations: &mut self.violations,
                };
                self.config_access.other(at, &mut cx);
                let (value, action) = self.common.read(at, width, &mut cx);
                self.act(action);
                self.common.zero_read |= at == 0x14 && value == 0;
                value
            }
            Some((Structure::Isr, _)) if width == 1 => std::mem::take(&mut self.isr).into(),
            Some((Structure::Device, at)) => self.read_device(at, width),
            Some((Structure::Notify, _)) => 0,
            _ => {
                self.violations.note(format!(
                    "{width} bytes read at {offset:#x}, where nothing is"
                ));
                u32::MAX
            }
        }
    }

    fn read_device(&mut self, offset: u64, width: usize) -> u32 {
        if let Generation::Changes(left @ 1..) = &mut self.faults.generation {
            *left -= 1;
            self.generation = self.generation.wrapping_add(1);
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        self.config_access.read(
            offset,
            width,
            &self.plan,
            self.common.status,
            &mut self.violations,
        );
        let Some(bytes) = self.config.get(start..start + width) else {
            self.violations
                .note(format!("{width} bytes of the configuration at {offset:#x}"));
            return u32::MAX;
        };
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    pub(crate) fn write_bar(&mut self, bar: u8, offset: u64, bytes: &[u8]) {
        let width = bytes.len();
        if !self.space.decodes() || offset >= self.places.bar_size(bar) {
            self.violations
                .note(format!("BAR {bar} written at {offset:#x}"));
            return;
        }
        let halves = width == 8 && bar == MSIX_BAR;
        if !(halves || matches!(width, 1 | 2 | 4)) || !offset.is_multiple_of(width as u64) {
            let note = format!("{width} bytes written at {offset:#x} of BAR {bar}");
            self.violations.note(note);
            return;
        }
        for (at, part) in (offset..).step_by(4).zip(bytes.chunks(4)) {
            let value = part
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u32::from(*byte));
            self.write_register(bar, at, part.len(), value);
        }
    }

    fn write_register(&mut self, bar: u8, offset: u64, width: usize, value: u32) {
        match bar {
            _ if bar == self.places.bar => self.write_structure(offset, width, value),
            MSIX_BAR if width == 4 => {
                let masked = self.space.is_msix_masked();
                self.table
                    .write(offset, value, masked, &mut self.violations);
                self.flush();
            }
            BLOCK_BAR if let Some(block) = &mut self.block => {
                let queues = &self.common.queues;
                let enabled = |queue| queues[usize::from(queue)].enabled;
                block.write(offset, width, value, enabled, &mut self.violations);
            }
            _ => self
                .violations
                .note(format!("{width} bytes at {offset:#x} of BAR {bar}")),
        }
    }

    fn write_structure(&mut self, offset: u64, width: usize, value: u32) {
        match self.places.structure(offset) {
            Some((Structure::Common, at)) => {
                let mut cx = Context {
                    plan: &self.plan,
                    faults: &self.faults,
                    generation: self.generation,
                    violations: &mut self.violations,
                };
                self.config_access.other(at, &mut cx);
                let action = self.common.write(at, width, value, &mut cx);
                self.act(action);
            }
            Some((Structure::Notify, at)) => self.notify(at, width, value),
            Some((Structure::Device, at)) => {
                self.config_access.write(
                    at,
                    width,
                    &self.plan,
                    self.common.status,
                    &mut self.violations,
                );
            }
            _ => {
                let note = format!("{value:#x} written at {offset:#x}, where nothing can be");
                self.violations.note(note);
            }
        }
    }

    /// 4.1.5.2.1: the width and the value of a notification.
    fn notify(&mut self, at: u64, width: usize, value: u32) {
        let with_data = self.common.driver_features & bits(virtio::F::NOTIFICATION_DATA) != 0;
        let wanted = if with_data { 4 } else { 2 };
        let queue = usize::try_from(value & 0xffff).unwrap_or(usize::MAX);
        let index = u16::try_from(value & 0xffff).unwrap_or(u16::MAX);
        let known = self.places.doorbell(index) == at;
        match self.kicks.get(queue) {
            Some(kick) if known && width == wanted => kick.raise(),
            _ => {
                let fault = format_args!("{width} bytes, {value:#x}, at notification {at:#x}");
                self.violations.against("4.1.5.2.1", fault);
                return;
            }
        }
        self.check_kicks();
        let engine = self.engines.get_mut(queue).and_then(Option::as_mut);
        if let Some(engine) = engine.filter(|_| with_data) {
            engine.rings.look(&mut self.violations);
            let (told, place) = (value >> 16, engine.rings.place());
            if told != u32::from(place) {
                let fault = format_args!("queue {index}: told {told:#x}, and stands at {place:#x}");
                self.violations.against("2.8.16", fault);
            }
        }
    }

    /// Notifications since the last look: only queues that run are notified (3.1.1).
    pub(crate) fn check_kicks(&mut self) {
        let live = self.common.status & DRIVER_OK != 0;
        for (queue, kick) in self.kicks.iter().enumerate() {
            let count = kick.count();
            if self.kicks_seen[queue] == count {
                continue;
            }
            self.kicks_seen[queue] = count;
            if !live {
                let fault = format_args!("queue {queue} notified before DRIVER_OK");
                self.violations.against("3.1.1", fault);
            } else if self.plan.product.is_plain() && !self.common.queues[queue].enabled {
                let fault = format_args!("queue {queue} notified, which is not enabled");
                self.violations.against("4.1.5.2", fault);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Reset => self.reset(),
            Action::Start(queue) => self.start(queue),
            Action::Stopped(queue) => self.stopped(queue),
        }
    }

    fn start(&mut self, queue: u16) {
        let index = usize::from(queue);
        let start = match &self.block {
            None => 0,
            Some(block) => {
                if block.layout().has_count() && block.count.is_none() {
                    self.violations
                        .note(format!("queue {queue} enabled before the count was told"));
                }
                let stand = block.stand(queue);
                if stand.avail != stand.used {
                    self.violations
                        .note(format!("queue {queue} starts at {stand:?}"));
                }
                stand.used
            }
        };
        let (registers, features) = (&self.common.queues[index], self.common.driver_features);
        let seen = self.kicks[index].count();
        match Engine::new(
            registers,
            features,
            start,
            seen,
            &self.memory,
            &mut self.violations,
        ) {
            Ok(engine) => self.engines[index] = Some(engine),
            Err(trouble) => self.broken(queue, trouble),
        }
        self.show_stand(queue);
    }

    /// The queue is disabled: its word says where it stands.
    fn stopped(&mut self, queue: u16) {
        if self.plan.blk_stop == BlkStop::Drains && self.plan.product.kind() == Kind::Blk {
            self.drain(queue);
        }
        let Some(engine) = self.engines[usize::from(queue)].take() else {
            return;
        };
        let mut stand = engine.stand();
        let Some(block) = &mut self.block else { return };
        if !block.layout().has_count() {
            // One index: what has been taken ahead is put back.
            stand.avail = stand.used;
        }
        let word = self.faults.ring_words.unwrap_or_else(|| stand.word());
        block.set_word(
            queue,
            if block.layout().width() == 2 {
                word & 0xffff
            } else {
                word
            },
        );
    }

    /// A block card's words are live.
    pub(crate) fn show_stand(&mut self, queue: u16) {
        let engine = self.engines[usize::from(queue)].as_ref();
        let live = self.plan.product.kind() == Kind::Blk;
        if let (Some(block), Some(engine)) = (&mut self.block, engine.filter(|_| live)) {
            block.set_word(queue, engine.stand().word());
        }
    }

    /// The driver has broken a queue: the device cannot go on (VIRTIO 1.2, 2.1.2).
    pub(crate) fn broken(&mut self, queue: u16, trouble: Trouble) {
        self.violations.note(format!("queue {queue}: {trouble}"));
        self.engines[usize::from(queue)] = None;
        self.common.status |= NEEDS_RESET;
        if self.common.status & DRIVER_OK != 0 {
            self.signal_config();
        }
    }

    /// Whether queues are processed.
    pub(crate) fn runs(&self) -> bool {
        let wanted = self.common.status & (DRIVER_OK | NEEDS_RESET | FAILED);
        self.present && wanted == DRIVER_OK && self.space.is_master()
    }

    pub(crate) fn serve(&mut self) -> Served {
        if !self.runs() {
            return Served::Idle;
        }
        self.pages.log = self.block.as_ref().and_then(Block::log);
        let done = match self.plan.product.kind() {
            Kind::Net => self.serve_net(),
            Kind::Blk => self.serve_blk(),
        };
        if done == 0 {
            Served::Idle
        } else {
            Served::More
        }
    }

    /// The driver is to be told of what a queue has used, if it wants to.
    pub(crate) fn signal_queue(&mut self, queue: u16) {
        let index = usize::from(queue);
        let wants = self.engines[index].as_mut().is_some_and(Engine::notify);
        if !wants {
            return;
        }
        // VIRTIO 1.2, 4.1.4.5.1.
        if !self.space.is_msix_enabled() {
            self.isr |= ISR_QUEUE;
        }
        self.raise(self.common.queues[index].interrupt(&self.plan));
    }

    pub(crate) fn signal_config(&mut self) {
        self.isr |= ISR_CONFIG;
        self.raise(self.common.config_vector);
    }

    fn raise(&mut self, vector: u16) {
        if vector == NO_VECTOR || !self.space.is_msix_enabled() {
            return;
        }
        let masked = self.space.is_msix_masked();
        let message = match self.plan.table {
            MsixTable::Own => self.table.raise(vector, masked),
            MsixTable::Hosts => Some(Message::default()),
        };
        if let Some(message) = message {
            self.send(vector, message);
        }
    }

    /// Sends what a mask has kept back.
    fn flush(&mut self) {
        if self.space.is_msix_enabled() {
            for (vector, message) in self.table.flush(self.space.is_msix_masked()) {
                self.send(vector, message);
            }
        }
    }

    /// A message is a write to memory.
    fn send(&mut self, vector: u16, message: Message) {
        if self.space.is_master() {
            self.counters.interrupts += 1;
            self.due.push((vector, message));
        }
    }
}
