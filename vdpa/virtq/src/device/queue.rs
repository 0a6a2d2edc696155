//! The device side of one queue: takes chains, gives them back, and keeps both sides awake.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use super::area::Host;
use super::chain::Chain;
use super::completion::Completion;
use super::config::{DeviceConfig, NewError};
use super::dirty::DirtyLog;
use super::error::{Broken, CompleteError, PopError};
use super::memory::Memory;
use super::order::Order;
use super::pool::{Held, Pool, Unfilled};
use super::ring::Ring;
use crate::{Pending, RingState};

/// Tells the chains of one queue from those of another.
static OWNERS: AtomicU32 = AtomicU32::new(0);

/// What a device side has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chains taken from the driver and not put back, malformed ones too.
    pub popped: u64,
    /// Chains given back to it.
    pub completed: u64,
    /// Publications that the driver wanted to be notified of.
    pub notified: u64,
    /// Publications that needed no notification.
    pub suppressed: u64,
}

/// The device side of a virtqueue, split or packed, over the driver's memory `M`, with a dirty log
/// `L`.
///
/// One round of a device: [`pop`](Self::pop) until nothing is there, [`complete`](Self::complete)
/// what is done, [`notify`](Self::notify) the driver if it returns true, and before waiting
/// [`enable_notifications`](Self::enable_notifications).
pub struct DeviceQueue<M, L = ()> {
    pub(super) host: Host<M, L>,
    ring: Ring,
    /// The generation of the memory that the ring was translated in.
    generation: u64,
    pool: Pool,
    /// Unless no second chain can be in flight.
    held: Option<Held>,
    /// With `VIRTIO_F_IN_ORDER`.
    order: Option<Order>,
    in_flight: u16,
    owner: u32,
    broken: Option<Broken>,
    abandoned: Option<Chain>,
    counters: Counters,
}

impl<M: Memory> DeviceQueue<M> {
    /// Makes the device side of a queue that the driver has set up. The ring is not touched yet.
    ///
    /// # Errors
    /// [`NewError`].
    pub fn new(config: &DeviceConfig, memory: M) -> Result<Self, NewError> {
        Self::with_log(config, memory, ())
    }
}

impl<M: Memory, L: DirtyLog> DeviceQueue<M, L> {
    /// As [`DeviceQueue::new`], and tells `log` of everything that is written.
    ///
    /// # Errors
    /// [`NewError`].
    pub fn with_log(config: &DeviceConfig, memory: M, log: L) -> Result<Self, NewError> {
        config.check()?;
        let features = config.features;
        // A packed driver may take any number for an id, a split one only those of descriptors.
        let ids = if features.packed {
            1 << 16
        } else {
            u32::from(config.size)
        };
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            ring: Ring::new(config)?,
            generation: memory.generation(),
            host: Host { memory, log },
            pool: Pool::new(config.in_flight_max, config.chain_max, owner),
            held: (config.in_flight_max > 1).then(|| Held::new(ids)),
            // The first chain is number 1.
            order: features.in_order.then(|| Order::new(config.size, 1)),
            in_flight: 0,
            owner,
            broken: None,
            abandoned: None,
            counters: Counters::default(),
        })
    }

    /// How many chains are with the device: taken, and not yet completed.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// How the driver has broken the queue, if it has.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where the queue stands, to go on later or elsewhere. `None` while a chain is in flight or
    /// its completion unpublished: a state has no room for them, so complete them and
    /// [`notify`](Self::notify) the driver first; what comes after knows of no earlier completion.
    #[must_use]
    pub fn state(&self) -> Option<RingState> {
        let settled = self.in_flight == 0 && !self.ring.has_unpublished();
        settled.then(|| self.ring.state())
    }

    /// Takes the next chain that the driver offers, checked, if there is one.
    ///
    /// # Errors
    /// [`PopError::Busy`], if a chain is there and nothing to keep it in. [`PopError::Broken`], at
    /// the first violation of the driver and ever after; see [`DeviceQueue::take_abandoned`].
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Chain>, PopError> {
        if let Some(broken) = self.broken {
            return Err(PopError::Broken(broken));
        }
        self.refresh();
        match self.ring.pop(&self.host.memory, &mut self.pool) {
            Ok(Some(mut chain)) => {
                if self.hold(&mut chain) {
                    return Ok(Some(chain));
                }
                self.pool.give(chain);
                Err(self.break_off(Broken::Duplicate))
            }
            Ok(None) => Ok(None),
            Err(Unfilled::NoRoom) => Err(PopError::Busy),
            Err(Unfilled::Broken(broken, chain)) => {
                self.abandon(chain);
                Err(self.break_off(broken))
            }
        }
    }

    /// Puts the chain that was taken last back, as if it had not been taken: it is the next one to
    /// take, and [`state`](Self::state) does not count it. The one taken before it may follow, and
    /// so on.
    ///
    /// # Errors
    /// The chain, if another one was taken after it, or it is not of this queue, or the queue is
    /// broken.
    pub fn put_back(&mut self, chain: Chain) -> Result<(), Chain> {
        let is_last = chain.body.owner == self.owner && chain.body.serial == self.counters.popped;
        if self.broken.is_some() || !is_last {
            return Err(chain);
        }
        self.ring.put_back(chain.descriptors());
        if let Some(held) = &mut self.held {
            held.remove(chain.id());
        }
        self.in_flight -= 1;
        self.counters.popped -= 1;
        self.pool.give(chain);
        Ok(())
    }

    /// Whether the driver offers a chain, as far as one can see without taking it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn is_pending(&mut self) -> Result<bool, Broken> {
        self.check()?;
        let pending = self.ring.is_pending(&self.host.memory);
        pending.inspect_err(|&broken| self.broken = Some(broken))
    }

    /// The chain that broke the queue, if it was possible to tell its id. It has no segments; a
    /// device that wants the driver to have it back completes it.
    pub fn take_abandoned(&mut self) -> Option<Chain> {
        self.abandoned.take()
    }

    /// Gives a chain back, of which the first `written` writable bytes were written, in one or more
    /// parts. The driver sees it with the next [`DeviceQueue::publish`] or [`DeviceQueue::notify`].
    /// With `VIRTIO_F_IN_ORDER` it waits for the chains that were taken before it.
    ///
    /// No more is reported than the chain holds.
    ///
    /// # Errors
    /// [`CompleteError`].
    #[inline]
    pub fn complete(&mut self, chain: Chain, written: u32) -> Result<(), CompleteError> {
        if chain.body.owner != self.owner {
            return Err(CompleteError::Foreign);
        }
        self.refresh();
        self.in_flight -= 1;
        let serial = chain.body.serial;
        if self.order.as_mut().is_some_and(|order| !order.pass(serial)) {
            return self.complete_out_of_turn(chain, written);
        }
        let completion = chain.completion(written);
        self.pool.give(chain);
        self.give_back(completion)
    }

    /// Shows the driver everything that was completed, at once.
    ///
    /// # Errors
    /// [`Broken::RingFault`], if the ring cannot be reached.
    #[inline]
    pub fn publish(&mut self) -> Result<(), Broken> {
        self.refresh();
        self.ring
            .publish(&self.host)
            .inspect_err(|&broken| self.broken = Some(broken))
    }

    /// Publishes, and says whether the driver wants to be notified of what was published since the
    /// last call. If the ring cannot be reached, the queue is broken and the driver notified.
    #[inline]
    #[must_use = "a driver that waits for a notification does not look at the ring without one"]
    pub fn notify(&mut self) -> bool {
        if self.publish().is_err() {
            return true;
        }
        match self.ring.wants_interrupt(&self.host.memory) {
            Ok(None) => false,
            Ok(Some(false)) => {
                self.counters.suppressed += 1;
                false
            }
            Ok(Some(true)) => {
                self.counters.notified += 1;
                true
            }
            Err(broken) => {
                self.broken = Some(broken);
                true
            }
        }
    }

    /// Asks the driver for a notification of the next chain, and says whether one is there already.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn enable_notifications(&mut self) -> Result<Pending, Broken> {
        self.check()?;
        let result = self.ring.enable_notifications(&self.host);
        let pending = result.and_then(|()| self.ring.is_pending(&self.host.memory));
        match pending {
            Ok(true) => Ok(Pending::Yes),
            Ok(false) => Ok(Pending::No),
            Err(broken) => {
                self.broken = Some(broken);
                Err(broken)
            }
        }
    }

    /// Asks the driver for no notifications. One that was under way may still come.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn disable_notifications(&mut self) -> Result<(), Broken> {
        self.check()?;
        let result = self.ring.disable_notifications(&self.host);
        result.inspect_err(|&broken| self.broken = Some(broken))
    }

    /// Drops what is known of the memory if a mapping has changed. Every operation on the ring
    /// begins with it; a worker that waits meanwhile calls it when it is told that a mapping was
    /// withdrawn, so that nothing keeps the memory from being used otherwise.
    #[inline]
    pub fn refresh(&mut self) {
        let generation = self.host.memory.generation();
        if generation != self.generation {
            self.ring.forget();
            self.generation = generation;
        }
    }

    fn check(&mut self) -> Result<(), Broken> {
        self.refresh();
        self.broken.map_or(Ok(()), Err)
    }

    /// Notes that a chain is in the device's hands. False if it already was.
    #[inline]
    fn hold(&mut self, chain: &mut Chain) -> bool {
        if let Some(held) = &mut self.held
            && !held.insert(chain.id())
        {
            return false;
        }
        self.in_flight += 1;
        self.counters.popped += 1;
        chain.body.serial = self.counters.popped;
        true
    }

    /// In order: a chain is done that is not the next, or behind which others wait. Gives every chain
    /// back whose turn has come; some may be left from when the ring could not be reached.
    #[cold]
    fn complete_out_of_turn(&mut self, chain: Chain, written: u32) -> Result<(), CompleteError> {
        let (serial, completion) = (chain.body.serial, chain.completion(written));
        self.pool.give(chain);
        let finish = |order: &mut Order| order.finish(serial, completion).or_else(|| order.next());
        let mut due = self.order.as_mut().and_then(finish);
        while let Some(completion) = due {
            self.give_back(completion)?;
            due = self.order.as_mut().and_then(Order::next);
        }
        Ok(())
    }

    #[inline(always)]
    fn give_back(&mut self, completion: Completion) -> Result<(), CompleteError> {
        if let Some(held) = &mut self.held {
            held.remove(completion.id);
        }
        self.counters.completed += 1;
        self.ring
            .complete(&self.host, completion)
            .map_err(|broken| {
                self.broken = Some(broken);
                CompleteError::Broken(broken)
            })
    }

    /// Keeps a malformed chain for the caller to return, if its id is known and its own.
    #[cold]
    fn abandon(&mut self, chain: Option<Chain>) {
        let Some(mut chain) = chain else {
            return;
        };
        chain.clear();
        if chain.descriptors() > 0 && self.hold(&mut chain) {
            self.abandoned = Some(chain);
        } else {
            self.pool.give(chain);
        }
    }

    #[cold]
    fn break_off(&mut self, broken: Broken) -> PopError {
        self.broken = Some(broken);
        PopError::Broken(broken)
    }
}

impl<M, L> fmt::Debug for DeviceQueue<M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceQueue")
            .field("in_flight", &self.in_flight)
            .field("broken", &self.broken)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
