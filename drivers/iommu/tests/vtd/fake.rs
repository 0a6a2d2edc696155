//! A remapping unit made of software, after the specification: registers, tables in memory, caches
//! that keep what they have seen until they are told to forget it, an invalidation queue, records
//! of faults, and remapping of interrupts.

mod config;
mod queue;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use vdpa::iotlb::Permission;
use vdpa::platform::{InterruptMessage, Mmio};
use vdpa::testing::FakePlatform;
use virtq::testing::HeapDma;
use virtq::{DmaAddr, Doorbell, NotifyFormat};

pub use self::config::{Config, LEGACY, every_kind};

const REGISTERS: u64 = 0x1000;
/// Where the fault records are.
const RECORDS: u64 = 0x400;

const TES: u32 = 1 << 31;
const RTPS: u32 = 1 << 30;
const WBF: u32 = 1 << 27;
const QIES: u32 = 1 << 26;
const IRES: u32 = 1 << 25;
const IRTPS: u32 = 1 << 24;
const CFIS: u32 = 1 << 23;

const PFO: u32 = 1 << 0;
const PPF: u32 = 1 << 1;
const IQE: u32 = 1 << 4;

/// Why something is refused: the reason that is recorded.
pub type Reason = u8;

/// What the unit has cached.
#[derive(Debug, Default)]
struct Caches {
    /// By source.
    contexts: BTreeMap<u16, Context>,
    absent_contexts: BTreeSet<u16>,
    pages: Vec<CachedPage>,
    /// Domain and page.
    absent_pages: BTreeSet<(u16, u64)>,
    interrupts: BTreeMap<u16, [u64; 2]>,
    absent_interrupts: BTreeSet<u16>,
}

/// What a context entry, and in scalable mode that of the PASID, says.
#[derive(Clone, Copy, Debug)]
struct Context {
    domain: u16,
    root: u64,
    levels: u32,
}

#[derive(Clone, Copy, Debug)]
struct CachedPage {
    domain: u16,
    first: u64,
    size: u64,
    addr: u64,
    permission: Permission,
}

#[derive(Debug)]
struct State {
    registers: BTreeMap<u64, u32>,
    caches: Caches,
    root: u64,
    interrupt_table: u64,
    next_record: u64,
    /// What must have been forgotten before something may be turned on.
    stale: BTreeSet<&'static str>,
    stuck: bool,
    refuses_descriptors: bool,
    waits: usize,
    flushes: usize,
}

pub struct Fake {
    config: Config,
    platform: Arc<FakePlatform>,
    heap: Arc<HeapDma>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Fake {
    pub fn new(config: Config, platform: &Arc<FakePlatform>) -> Arc<Self> {
        let mut caches = Caches::default();
        // Whatever a unit has cached before it is told: device 01:00.0 is in a domain of firmware.
        let old = Context {
            domain: 1,
            root: 0,
            levels: 3,
        };
        caches.contexts.insert(0x100, old);
        for domain in [1, 2, 3] {
            caches.pages.push(CachedPage {
                domain,
                first: 0x1000,
                size: 0x1000,
                addr: 0xdead_0000,
                permission: Permission::all(),
            });
        }
        caches.interrupts.insert(0, [0xbad_0001, 0]);
        let mut registers = BTreeMap::from([(0x00, 0x60), (0x38, 1 << 31)]);
        if config.left_on {
            registers.insert(0x1c, TES | QIES | IRES | RTPS | IRTPS | CFIS);
        }
        if config.protects {
            registers.insert(0x64, 1 << 31 | 1);
        }
        Arc::new(Self {
            config,
            platform: Arc::clone(platform),
            heap: Arc::clone(platform.heap()),
            state: Mutex::new(State {
                registers,
                caches,
                root: 0,
                interrupt_table: 0,
                next_record: 0,
                stale: BTreeSet::from(["contexts", "pasids", "pages", "interrupts"]),
                stuck: false,
                refuses_descriptors: false,
                waits: 0,
                flushes: 0,
            }),
        })
    }

    /// From now on the queue stands still, or goes on.
    pub fn set_stuck(&self, stuck: bool) {
        self.state().stuck = stuck;
    }

    /// From now on every descriptor is invalid.
    pub fn refuse_descriptors(&self) {
        self.state().refuses_descriptors = true;
    }

    /// How often somebody has waited for the queue.
    pub fn waits(&self) -> usize {
        self.state().waits
    }

    /// How often the write buffer was flushed.
    pub fn flushes(&self) -> usize {
        self.state().flushes
    }

    pub fn is_on(&self) -> bool {
        self.state().status() & TES != 0
    }

    pub fn protects_ranges(&self) -> bool {
        self.state().register(0x64) & 1 != 0
    }

    /// A device accesses memory: where that leads. What is refused is recorded.
    pub fn access(&self, source: u16, iova: u64, access: Permission) -> Result<u64, Reason> {
        let mut state = self.state();
        if state.status() & TES == 0 {
            return Ok(iova);
        }
        let result = state.translate(self, source, iova, access);
        if let Err(reason) = result {
            let info = iova & !0xfff;
            let message = state.record(self, source, info, reason, access);
            drop(state);
            self.tell(message);
        }
        result
    }

    pub fn read(&self, source: u16, iova: u64) -> Result<u64, Reason> {
        self.access(source, iova, Permission::READ)
    }

    pub fn write(&self, source: u16, iova: u64) -> Result<u64, Reason> {
        self.access(source, iova, Permission::WRITE)
    }

    /// A device sends a message: the lower half of the entry that it uses, or the data of one that
    /// is not remapped.
    pub fn interrupt(&self, source: u16, message: InterruptMessage) -> Result<u64, Reason> {
        let mut state = self.state();
        if state.status() & IRES == 0 {
            return Ok(message.data.into());
        }
        let (low, high) = (message.address >> 5 & 0x7fff, message.address >> 2 & 1);
        let index = (low | (high << 15)) as u16;
        let result = if message.address >> 4 & 1 == 0 {
            if state.status() & CFIS == 0 {
                Err(0x25)
            } else {
                Ok(message.data.into())
            }
        } else {
            state.remap(self, source, index)
        };
        if let Err(reason) = result {
            let info = u64::from(index) << 48;
            let message = state.record(self, source, info, reason, Permission::WRITE);
            drop(state);
            self.tell(message);
        }
        result
    }

    fn tell(&self, message: Option<InterruptMessage>) {
        if let Some(message) = message {
            self.platform.fire(message);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails says so once.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self, addr: u64) -> u64 {
        let mut word = [0; 8];
        self.heap
            .read(DmaAddr(addr), &mut word)
            .expect("the unit reads memory that is its own");
        u64::from_le_bytes(word)
    }

    fn capability(&self) -> u64 {
        let config = &self.config;
        let psi = config.most_pages.map_or(0, |most| 1 << 39 | most << 48);
        config.domains
            | u64::from(config.buffers_writes) << 4
            | u64::from(config.protects) << 5
            | u64::from(config.caching) << 7
            | config.sagaw << 8
            | (config.address_bits - 1) << 16
            | (RECORDS / 16) << 24
            | config.large_pages << 34
            | (config.records - 1) << 40
            | psi
            | 3 << 54
    }

    fn extended_capability(&self) -> u64 {
        let config = &self.config;
        let coherent = u64::from(config.snoops);
        let scalable = u64::from(config.scalable);
        let remaps = u64::from(config.remaps) * 0b11000;
        coherent | 1 << 1 | remaps | 1 << 7 | scalable << 43 | scalable << 46 | coherent << 48
    }
}

impl State {
    fn register(&self, offset: u64) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn register64(&self, offset: u64) -> u64 {
        u64::from(self.register(offset)) | u64::from(self.register(offset + 4)) << 32
    }

    fn status(&self) -> u32 {
        self.register(0x1c)
    }

    /// The global command register has been written (11.4.4).
    fn command(&mut self, fake: &Fake, command: u32) {
        let before = self.status();
        if command & RTPS != 0 {
            assert_eq!(before & TES, 0, "nothing is translated meanwhile");
            self.root = self.register64(0x20);
            self.stale.extend(["contexts", "pasids", "pages"]);
            assert_eq!(self.root >> 10 & 3, u64::from(fake.config.scalable));
        }
        if command & IRTPS != 0 {
            self.interrupt_table = self.register64(0xb8);
            self.stale.insert("interrupts");
        }
        if command & QIES == 0 && before & QIES != 0 {
            assert_eq!(command & (TES | IRES), 0, "the queue is turned off last");
        }
        if command & QIES != 0 && before & QIES == 0 {
            let is_wide = self.register64(0x90) >> 11 & 1 != 0;
            assert_eq!(is_wide, fake.config.scalable, "the width of descriptors");
            self.registers.insert(0x80, 0);
        }
        if command & WBF != 0 {
            self.flushes += 1;
        }
        if command & IRES != 0 && before & IRES == 0 {
            assert!(!self.stale.contains("interrupts"));
        }
        if command & TES != 0 && before & TES == 0 {
            let missing = ["contexts", "pages"].iter();
            let pasids = fake.config.scalable.then_some(&"pasids");
            for what in missing.chain(pasids) {
                assert!(!self.stale.contains(what), "{what} of an old table");
            }
        }
        let states = TES | QIES | IRES | CFIS;
        let latched = (before | command) & (RTPS | IRTPS);
        self.registers.insert(0x1c, command & states | latched);
    }

    /// Records a fault (7.3). What to tell, if an interrupt is due.
    fn record(
        &mut self,
        fake: &Fake,
        source: u16,
        info: u64,
        reason: Reason,
        access: Permission,
    ) -> Option<InterruptMessage> {
        let status = self.register(0x34);
        if status & PFO != 0 {
            return None;
        }
        let at = RECORDS + self.next_record * 16;
        let was_quiet = status & (PPF | IQE) == 0;
        if self.register(at + 12) >> 31 != 0 {
            self.registers.insert(0x34, status | PFO);
        } else {
            let read = u32::from(access == Permission::READ) << 30;
            self.registers.insert(at, info as u32);
            self.registers.insert(at + 4, (info >> 32) as u32);
            self.registers.insert(at + 8, source.into());
            self.registers
                .insert(at + 12, 1 << 31 | read | u32::from(reason));
            self.next_record = (self.next_record + 1) % fake.config.records;
            self.registers.insert(0x34, status | PPF);
        }
        let unmasked = self.register(0x38) >> 31 == 0;
        (was_quiet && unmasked).then(|| InterruptMessage {
            address: self.register64(0x40),
            data: self.register(0x3c),
        })
    }

    fn update_pending(&mut self, fake: &Fake) {
        let pending = (0..fake.config.records)
            .any(|index| self.register(RECORDS + index * 16 + 12) >> 31 != 0);
        let status = self.register(0x34) & !PPF;
        self.registers
            .insert(0x34, status | if pending { PPF } else { 0 });
    }
}

// SAFETY: the registers are a fake's.
unsafe impl Mmio for Fake {
    fn len(&self) -> u64 {
        REGISTERS
    }

    fn read8(&self, _: u64) -> u8 {
        panic!("registers have 32 bits")
    }

    fn read16(&self, _: u64) -> u16 {
        panic!("registers have 32 bits")
    }

    fn read32(&self, offset: u64) -> u32 {
        match offset {
            0x08 => self.capability() as u32,
            0x0c => (self.capability() >> 32) as u32,
            0x10 => self.extended_capability() as u32,
            0x14 => (self.extended_capability() >> 32) as u32,
            _ => self.state().register(offset),
        }
    }

    unsafe fn write8(&self, _: u64, _: u8) {
        panic!("registers have 32 bits")
    }

    unsafe fn write16(&self, _: u64, _: u16) {
        panic!("registers have 32 bits")
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        if thread::panicking() {
            return;
        }
        let mut state = self.state();
        match offset {
            0x18 => state.command(self, value),
            // What is read there is not written.
            0x00..0x18 | 0x1c | 0x80..0x88 => panic!("a read-only register at {offset:#x}"),
            0x34 => {
                let left = state.register(0x34) & !(value & 0x71);
                state.registers.insert(0x34, left);
                state.update_pending(self);
            }
            0x64 => {
                let protects = value >> 31;
                state.registers.insert(0x64, protects << 31 | protects);
            }
            0x88 => {
                state.registers.insert(offset, value);
                state.run_queue(self);
            }
            RECORDS..REGISTERS => {
                if offset % 16 == 12 && value >> 31 != 0 {
                    state.registers.insert(offset, 0);
                    state.update_pending(self);
                }
            }
            _ => {
                state.registers.insert(offset, value);
            }
        }
    }

    unsafe fn doorbell(&self, _: u64, _: u16, _: NotifyFormat) -> Option<Doorbell> {
        None
    }
}
