//! A card, as the machine that it is plugged into sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtq::{Doorbell, Event};

use crate::GuestMemory;
use crate::blk::{self, Requests};
use crate::common::{Common, DRIVER_OK};
use crate::config_access::ConfigAccess;
use crate::config_space::{ConfigSpace, SIZE};
use crate::migration::{Block, BlockWrite};
use crate::msix::{Message, Table};
use crate::net::{Frames, NetSettings};
use crate::pages::Pages;
use crate::places::Places;
use crate::plan::{Faults, Place, Plan, PlanError};
use crate::product::Kind;
use crate::state::State;
use crate::storage::Storage;
use crate::violations::Violations;
use crate::wire::Wire;

/// Who carries the card's interrupts to the processor.
pub trait Host: Send + Sync {
    /// The card raises an interrupt. `message` is what its table holds, if the table is its own.
    /// The card is not locked meanwhile.
    fn interrupt(&self, vector: u16, message: Message);
}

/// What the card is for.
#[derive(Debug)]
pub enum Function {
    /// Network, with the other end of the cable.
    Net(Box<dyn Wire>),
    /// Block, with the disk.
    Blk(Box<dyn Storage>),
}

/// Whether a card has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Nothing was there to do.
    Idle,
    /// Something was done, and there may be more.
    More,
}

/// What a card has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accesses to configuration space and registers.
    pub accesses: u64,
    /// Resets of the device, those of the function among them.
    pub resets: u64,
    /// Function-level resets.
    pub function_resets: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    pub(crate) frames: Frames,
    pub(crate) requests: Requests,
}

impl Counters {
    /// Frames taken from the driver.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.frames.sent
    }

    /// Frames given to the driver.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.frames.received
    }

    /// Frames for which the driver's buffer was too small.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.frames.dropped
    }

    /// Requests to read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.requests.reads
    }

    /// Requests to write.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.requests.writes
    }

    /// Requests that were answered with an error.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.requests.failed
    }
}

/// A card.
pub struct Card {
    state: Mutex<State>,
    kicks: Vec<Arc<Event>>,
    host: Arc<dyn Host>,
}

impl Card {
    /// A card in a slot, without power yet: nobody has set its configuration space.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        plan: Plan,
        function: Function,
        memory: GuestMemory,
        host: Arc<dyn Host>,
    ) -> Result<Arc<Self>, PlanError> {
        plan.check()?;
        let config = match (&function, plan.product.kind()) {
            (Function::Net(_), Kind::Net) => net_config(&plan),
            (Function::Blk(storage), Kind::Blk) => blk::config(&plan, &**storage),
            _ => return Err(PlanError::Function),
        };
        let places = Places::new(&plan, config.len());
        let queues = plan.queue_count();
        let has_block = plan.place == Place::Bar0 && plan.block_bar.is_none();
        let block = has_block.then(|| Block::new(plan.product.layout(), queues));
        let kicks: Vec<Arc<Event>> = (0..queues).map(|_| Arc::default()).collect();
        let state = State {
            space: ConfigSpace::new(&plan, &places)?,
            places,
            faults: Faults::default(),
            violations: Violations::default(),
            table: Table::new(plan.vectors),
            common: Common::new(&plan),
            isr: 0,
            generation: 0,
            config,
            block,
            engines: (0..queues).map(|_| None).collect(),
            kicks: kicks.clone(),
            kicks_seen: vec![0; kicks.len()],
            config_access: ConfigAccess::default(),
            function,
            settings: NetSettings::new(&plan),
            memory,
            pages: Pages::default(),
            counters: Counters::default(),
            present: true,
            due: Vec::new(),
            plan,
        };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            kicks,
            host,
        }))
    }

    /// Reads configuration space.
    pub fn read_config(&self, offset: u16, bytes: &mut [u8]) {
        self.with(|state| {
            if state.answers() {
                state.space.read(offset, bytes);
            } else {
                bytes.fill(0xff);
            }
        });
    }

    /// Writes configuration space.
    pub fn write_config(&self, offset: u16, bytes: &[u8]) {
        self.with(|state| {
            if state.answers() {
                state.write_config(offset, bytes);
            }
        });
    }

    /// Reads registers behind a BAR. All ones where nothing is, or in a width that the register
    /// does not have.
    pub fn read_bar(&self, bar: u8, offset: u64, bytes: &mut [u8]) {
        self.with(|state| {
            if state.answers() {
                state.read_bar(bar, offset, bytes);
            } else {
                bytes.fill(0xff);
            }
        });
    }

    /// Writes registers behind a BAR.
    pub fn write_bar(&self, bar: u8, offset: u64, bytes: &[u8]) {
        self.with(|state| {
            if state.answers() {
                state.write_bar(bar, offset, bytes);
            }
        });
    }

    /// Looks at the whole configuration space without an access.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        self.lock().space.read(0, &mut bytes);
        bytes
    }

    /// How large a BAR is; 0 if there is none.
    #[must_use]
    pub fn bar_size(&self, bar: u8) -> u64 {
        self.lock().places.bar_size(bar)
    }

    /// Where a BAR is, if it has an address and the card answers to it.
    #[must_use]
    pub fn bar_address(&self, bar: u8) -> Option<u64> {
        let state = self.lock();
        let answers = state.present && state.space.decodes() && state.places.bar_size(bar) > 0;
        state.space.bar_address(bar).filter(|_| answers)
    }

    /// How many MSI-X entries there are.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.lock().table.len()
    }

    /// How many of them are not masked, while MSI-X is enabled.
    #[must_use]
    pub fn unmasked(&self) -> usize {
        let state = self.lock();
        if state.space.is_msix_enabled() {
            state.table.unmasked()
        } else {
            0
        }
    }

    /// The notification register of a queue, as a doorbell; `None`, if it is elsewhere.
    #[must_use]
    pub fn doorbell(&self, bar: u8, offset: u64, queue: u16) -> Option<Doorbell> {
        let state = self.lock();
        let right = bar == state.places.bar && offset == state.places.doorbell_in_bar(queue);
        let kick = self.kicks.get(usize::from(queue))?;
        right.then(|| Doorbell::event(Arc::clone(kick)))
    }

    /// How often a queue was notified.
    #[must_use]
    pub fn kicks(&self, queue: u16) -> u64 {
        self.kicks
            .get(usize::from(queue))
            .map_or(0, |kick| kick.count())
    }

    /// Does a bounded part of what there is to do.
    pub fn serve(&self) -> Served {
        self.with(State::serve)
    }

    /// Resets the function as a function-level reset does.
    pub fn reset_function(&self) {
        self.with(State::reset_function);
    }

    /// Pulls the card out: everything reads as ones, and it touches no memory any more.
    pub fn remove(&self) {
        self.with(State::remove);
    }

    /// Changes the device-specific configuration and says so.
    pub fn change_config(&self, change: impl FnOnce(&mut [u8])) {
        self.with(|state| {
            change(&mut state.config);
            state.generation = state.generation.wrapping_add(1);
            if state.present && state.common.status & DRIVER_OK != 0 {
                state.signal_config();
            }
        });
    }

    /// Changes how the card behaves.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.with(|state| change(&mut state.faults));
    }

    /// What the driver did that it must not.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.list()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// The device status.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.lock().common.status
    }

    /// What the driver accepts.
    #[must_use]
    pub fn driver_features(&self) -> u128 {
        self.lock().common.driver_features
    }

    /// What the driver has made of a network card by commands.
    #[must_use]
    pub fn settings(&self) -> NetSettings {
        self.lock().settings.clone()
    }

    /// Takes the numbers of the pages that payload was written to.
    #[must_use]
    pub fn take_written_pages(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.lock().pages.written)
    }

    /// The writes that the live-migration block has seen.
    #[must_use]
    pub fn block_writes(&self) -> Vec<BlockWrite> {
        let state = self.lock();
        state
            .block
            .as_ref()
            .map_or_else(Vec::new, |block| block.writes.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, and sends the interrupts that come of it when the lock is free.
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = work(&mut state);
        let due = std::mem::take(&mut state.due);
        drop(state);
        for (vector, message) in due {
            self.host.interrupt(vector, message);
        }
        result
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({})", self.lock().plan.product)
    }
}

/// The configuration of a network card (VIRTIO 1.2, 5.1.4): address, status, pairs, MTU.
fn net_config(plan: &Plan) -> Vec<u8> {
    const LINK_UP: u16 = 1;
    let words = [LINK_UP, plan.queues, plan.mtu].map(u16::to_le_bytes);
    [&plan.mac[..], &words.concat()].concat()
}
