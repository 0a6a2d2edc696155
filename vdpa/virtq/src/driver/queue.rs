//! The driver side of a virtqueue.
//!
//! A queue owns the chains that are with the device. It keeps its own books in private memory: free
//! descriptors, who is in flight, how much the device may have written. What the device writes, an
//! index or a flag and pairs of id and length, is read once and checked against those books; the
//! first lie marks the queue [`Broken`], for good.
//!
//! Source: VIRTIO 1.2, 2.7.13 and 2.8.21 (supplying buffers).

mod order;
mod rewind;
mod submit;
mod used;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::mem;

use super::chain::{Plan, Totals, only};
use super::error::{AddError, AddReason, Broken, CreateError, StillHeld};
use super::memory::Format;
use super::ring::Ring;
use super::ring_config::RingConfig;
use super::types::{Notify, Pending, QueueConfig, Token, Used};
use super::{Chain, DeviceHold, IndirectTable, UsedWatch};
use crate::format::{F_WRITE, RingAddresses, RingState, SIZE_MAX};
use crate::{AddressSpaceId, DmaAllocator, DmaError, Statistics};

use self::order::{InOrderRing, Order};
pub(super) use self::submit::Submitted;

/// What the queue knows about a chain, by its id.
struct Slot<T> {
    /// It stays here until it is fetched, maybe after it came back.
    chain: Option<T>,
    /// When it was added, counted from the queue's beginning: it tells what has been published.
    position: u64,
    /// How many descriptors of the ring it takes; 0 when it is not in the ring.
    descriptors: u16,
    /// How much the device may write.
    writable: u32,
}

/// The driver side of a virtqueue, split or packed.
pub struct Queue<T: Chain> {
    ring: Ring,
    /// Whose addresses the device uses.
    space: AddressSpaceId,
    size: u16,
    /// The most segments in a chain, and the most in a table of the ring.
    segments_max: u16,
    table_len: u16,
    /// Which tables of chains the device can read.
    table_format: Option<Format>,
    slots: Box<[Slot<T>]>,
    /// Free descriptors.
    free: u16,
    /// Chains ever added, and ever published.
    added: u64,
    published: u64,
    /// Chains published and not yet taken back.
    in_flight: u16,
    order: Order,
    /// Used chains that a rewind has found and nobody has taken yet.
    set_aside: VecDeque<Used<T>>,
    broken: Option<Broken>,
    hold: Arc<DeviceHold>,
    statistics: Arc<Statistics>,
}

impl<T: Chain> Queue<T> {
    /// Makes an empty queue. Its memory stays put until the queue is dropped.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn new(
        config: &QueueConfig,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, CreateError> {
        Self::resume(config, RingState::start(config.features), dma, hold)
    }

    /// Makes an empty queue that goes on where another stood, for [`Queue::state`].
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn resume(
        config: &QueueConfig,
        state: RingState,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, CreateError> {
        let QueueConfig {
            size,
            align,
            features,
        } = *config;
        if size == 0 || size > SIZE_MAX || !(features.packed || size.is_power_of_two()) {
            return Err(CreateError::BadSize);
        }
        if !align.is_power_of_two() {
            return Err(CreateError::BadAlignment);
        }
        match state {
            RingState::Split { .. } if !features.packed => {}
            RingState::Packed { index, .. } if features.packed && index < size => {}
            _ => return Err(CreateError::BadState),
        }
        // VIRTIO 1.2, 2.7.5.3.1: no chain is longer than the queue, indirect or not.
        let segments_max = T::MAX_SEGMENTS.min(size);
        let needs_tables = features.indirect && segments_max > 1 && !T::KEEPS_TABLE;
        let table_len = if needs_tables { segments_max } else { 0 };
        if dma.space() == AddressSpaceId::NONE {
            return Err(CreateError::Memory(DmaError::BadAddress));
        }
        let ring = Ring::new(
            &RingConfig {
                size,
                align,
                features,
                table_len,
            },
            state,
            dma,
            hold,
        )?;
        let slots = (0..size).map(|_| Slot {
            chain: None,
            position: 0,
            descriptors: 0,
            writable: 0,
        });
        let order = if features.in_order {
            Order::Same(InOrderRing::new(size))
        } else {
            Order::Any
        };
        Ok(Self {
            ring,
            space: dma.space(),
            size,
            segments_max,
            table_len,
            table_format: features.indirect.then(|| Format::of(features)),
            slots: slots.collect(),
            free: size,
            added: 0,
            published: 0,
            in_flight: 0,
            order,
            set_aside: VecDeque::new(),
            broken: None,
            hold: Arc::clone(hold),
            statistics: Arc::default(),
        })
    }

    /// Where the device finds the ring.
    #[must_use]
    pub fn addresses(&self) -> RingAddresses {
        self.ring.addresses()
    }

    /// Where the queue stands; `None` while chains are added or in flight.
    #[must_use]
    pub fn state(&self) -> Option<RingState> {
        (self.free == self.size).then(|| self.ring.state())
    }

    /// How many descriptors there are.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many descriptors are free.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// How many chains are with the device.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// How the device has broken the queue, if it has.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// The live counters.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Puts a chain into the ring. The device sees it with the next [`Queue::publish`].
    ///
    /// # Errors
    /// [`AddError`], which gives the chain back.
    #[inline]
    pub fn add(&mut self, chain: T) -> Result<Token, AddError<T>> {
        // A frame is one descriptor. On a packed ring it needs no plan, if nothing is wrong with it.
        if let Ring::Packed(ring) = &mut self.ring
            && let Some((segment, flags)) = only(&chain)
            && segment.len > 0
            && segment.space == self.space
            && self.free > 0
            && self.broken.is_none()
        {
            let id = ring.add_single(segment, flags);
            let is_writable = flags & F_WRITE != 0;
            let writable = if is_writable { segment.len } else { 0 };
            self.enter(id, chain, 1, writable);
            return Ok(Token(id));
        }
        self.add_any(chain).map(|(token, _)| token)
    }

    /// The same for a chain of any shape, and the chain that the token has named before, if it has
    /// come back and nobody has [fetched](Queue::fetch) it.
    #[inline(always)]
    pub(super) fn add_any(&mut self, chain: T) -> Result<(Token, Option<T>), AddError<T>> {
        let plan = match self.table(&chain) {
            Some(table) => self.plan_table(table),
            None if T::KEEPS_TABLE => self.plan_odd(&chain),
            None => self.plan(&chain),
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(reason) => return Err(AddError { chain, reason }),
        };
        let id = match &mut self.ring {
            Ring::Split(ring) => ring.add(&chain, &plan, None),
            Ring::Packed(ring) => ring.add(&chain, &plan, None),
        };
        let before = self.enter(id, chain, plan.descriptors, plan.writable);
        Ok((Token(id), before))
    }

    /// Keeps a chain that is in the ring now, and returns the one that its id has named before.
    #[inline(always)]
    fn enter(&mut self, id: u16, chain: T, descriptors: u16, writable: u32) -> Option<T> {
        if let Order::Same(line) = &mut self.order {
            let last = line.ids.len() - 1;
            line.ids[self.added as usize & last] = id;
        }
        let slot = &mut self.slots[usize::from(id)];
        let before = slot.chain.replace(chain);
        (slot.position, slot.descriptors) = (self.added, descriptors);
        slot.writable = writable;
        self.added += 1;
        self.free -= descriptors;
        before
    }

    /// Looks at a chain as a whole, and decides how it lies in the ring.
    #[inline]
    fn plan(&self, chain: &T) -> Result<Plan, AddReason> {
        let totals = Totals::of(chain, self.space);
        let segments = totals.segments;
        let indirect = segments > 1 && segments <= u32::from(self.table_len);
        let descriptors = if indirect { 1 } else { segments };
        self.check(&totals, descriptors)?;
        // All are at most what was checked.
        Ok(Plan {
            segments: segments as u16,
            descriptors: descriptors as u16,
            writable: totals.writable as u32,
            table: None,
        })
    }

    /// The same for a chain that mostly has a table of its own.
    #[cold]
    fn plan_odd(&self, chain: &T) -> Result<Plan, AddReason> {
        self.plan(chain)
    }

    /// The same for a chain with a table, whose segments have been looked at.
    #[inline]
    fn plan_table(&self, table: &IndirectTable) -> Result<Plan, AddReason> {
        self.check(&table.totals, 1)?;
        if table.whole.space != self.space {
            return Err(AddReason::Foreign);
        }
        // As above.
        Ok(Plan {
            segments: table.totals.segments as u16,
            descriptors: 1,
            writable: table.totals.writable as u32,
            table: Some(table.whole),
        })
    }

    /// Whether a chain of `descriptors` descriptors can be added.
    #[inline(always)]
    fn check(&self, totals: &Totals, descriptors: u32) -> Result<(), AddReason> {
        if let Some(broken) = self.broken {
            return Err(AddReason::Broken(broken));
        }
        if totals.segments == 0 {
            return Err(AddReason::Empty);
        }
        if totals.segments > u32::from(self.segments_max) {
            return Err(AddReason::TooLong);
        }
        if totals.has_empty {
            return Err(AddReason::Empty);
        }
        if totals.has_foreign {
            return Err(AddReason::Foreign);
        }
        // VIRTIO 1.2, 2.7.5: no chain is longer than 2^32 bytes.
        if totals.bytes > u64::from(u32::MAX) {
            return Err(AddReason::TooLong);
        }
        if u32::from(self.free) < descriptors {
            return Err(AddReason::Full);
        }
        Ok(())
    }

    /// The chain's own table, if the device can read it.
    #[inline]
    fn table<'a>(&self, chain: &'a T) -> Option<&'a IndirectTable> {
        let is_fitting = |table: &&IndirectTable| Some(table.format) == self.table_format;
        let table = if T::KEEPS_TABLE { chain.table() } else { None };
        table.filter(is_fitting)
    }

    /// Lets the device see every chain added so far, and says whether it wants to be notified.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        let batch = self.added - self.published;
        if batch == 0 {
            return Notify::NotNeeded;
        }
        let needed = match &mut self.ring {
            Ring::Split(ring) => ring.publish(),
            Ring::Packed(ring) => ring.publish(),
        };
        self.published = self.added;
        // No more chains than descriptors.
        self.in_flight += batch as u16;
        self.statistics.count_publication(batch, needed);
        if needed {
            Notify::Needed
        } else {
            Notify::NotNeeded
        }
    }

    /// What a notification tells the device besides the queue's index, with
    /// `VIRTIO_F_NOTIFICATION_DATA` (VIRTIO 1.2, 2.9).
    #[must_use]
    pub fn place(&self) -> u16 {
        self.ring.place()
    }

    /// A look at the used index from outside of the queue; `None` for a packed ring, which has
    /// none.
    #[must_use]
    pub fn used_watch(&self) -> Option<UsedWatch> {
        self.ring.used_watch()
    }

    /// Asks for an interrupt at the next used chain, and says whether one is there already.
    pub fn enable_interrupts(&mut self) -> Pending {
        let used = self.ring.enable_interrupts() || self.has_found();
        if used { Pending::Yes } else { Pending::No }
    }

    /// Asks for no interrupts. The device may still raise one that was under way.
    pub fn disable_interrupts(&mut self) {
        self.ring.disable_interrupts();
    }

    /// Gives back a chain that the device never returned, once it cannot touch memory any more.
    /// `None` while the [`DeviceHold`] is held, and when no chain is left. What follows is a
    /// [`Queue::restart`], or the end of the queue.
    pub fn reclaim(&mut self) -> Option<T> {
        if self.hold.is_held() {
            return None;
        }
        let left = self.slots.iter_mut().find(|slot| slot.descriptors > 0)?;
        left.descriptors = 0;
        left.chain.take()
    }

    /// Starts afresh after a reset of the queue (`VIRTIO_F_RING_RESET`) or of the device, as it was
    /// made; chains that were in flight are dropped.
    ///
    /// # Errors
    /// [`StillHeld`], unless the [`DeviceHold`] has been released.
    pub fn restart(&mut self) -> Result<(), StillHeld> {
        if self.hold.is_held() {
            return Err(StillHeld);
        }
        while self.reclaim().is_some() {}
        self.set_aside.clear();
        self.ring.restart();
        if let Order::Same(line) = &mut self.order {
            line.batch_end = self.added;
        }
        self.free = self.size;
        self.published = self.added;
        self.in_flight = 0;
        self.broken = None;
        Ok(())
    }
}

impl<T: Chain> Drop for Queue<T> {
    fn drop(&mut self) {
        if self.hold.is_held() {
            for slot in &mut self.slots {
                if slot.descriptors > 0 {
                    mem::forget(slot.chain.take());
                }
            }
        }
    }
}

impl<T: Chain> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("size", &self.size())
            .field("free", &self.free)
            .field("in_flight", &self.in_flight)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}
