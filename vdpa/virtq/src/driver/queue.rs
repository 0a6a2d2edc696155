//! The driver side of a virtqueue.
//!
//! A queue owns the chains that are with the device. It keeps its own books in private memory: free
//! descriptors, who is in flight, how much the device may have written. What the device writes, an
//! index or a flag and pairs of id and length, is read once and checked against those books; the
//! first lie marks the queue [`Broken`], for good.
//!
//! Source: VIRTIO 1.2, 2.7.13 and 2.8.21 (supplying buffers), 2.7.14 and 2.8.22 (receiving used buffers).

mod rewind;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::mem;

use super::error::{AddError, AddReason, Broken, CreateError, StillHeld};
use super::plan::Plan;
use super::ring::{Claim, Ring, RingConfig};
use super::{Chain, DeviceHold, UsedWatch};
use crate::format::{RingAddresses, RingFeatures, RingState, SIZE_MAX};
use crate::{DmaAllocator, Statistics};

/// How a queue is made.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Entries: at most 32768, and a power of two unless the ring is packed.
    pub size: u16,
    /// What the device wants each part of the ring aligned to, in bytes, if more than the
    /// specification does: a power of two, or 1.
    pub align: usize,
    /// What was negotiated.
    pub features: RingFeatures,
}

/// Which chain of a queue: unique among those in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u16);

impl Token {
    /// A number below the queue's size, to keep books by.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A chain that the device has used.
#[derive(Debug)]
pub struct Used<T> {
    /// What [`Queue::add`] called it.
    pub token: Token,
    /// The chain.
    pub chain: T,
    /// How many bytes the device says it has written, from the start of the writable segments:
    /// never more than they hold.
    pub written: u32,
}

/// Whether the device wants to hear of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a device that needs a notification does not look at the ring without one"]
pub enum Notify {
    /// Ring the doorbell.
    Needed,
    /// The device is looking anyway.
    NotNeeded,
}

/// Whether used chains arrived while interrupts were being enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "no interrupt comes for chains that are pending already"]
pub enum Pending {
    /// Take again before waiting.
    Yes,
    /// The next used chain raises an interrupt.
    No,
}

/// What the queue knows about a chain, by its id.
struct Slot<T> {
    chain: Option<T>,
    /// When it was added, counted from the queue's beginning: it tells what has been published.
    position: u64,
    /// How many descriptors of the ring it takes.
    descriptors: u16,
    /// How much the device may write.
    writable: u32,
}

/// The driver side of a virtqueue, split or packed.
pub struct Queue<T: Chain> {
    ring: Ring,
    size: u16,
    table_len: u16,
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

/// In which order the device returns chains.
enum Order {
    Any,
    /// As they were added (`VIRTIO_F_IN_ORDER`).
    Same {
        /// The ids of the chains in flight, oldest first.
        waiting: VecDeque<u16>,
        /// The last of a batch that the device has used, and what it wrote into that one.
        batch: Option<(u16, u32)>,
    },
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
        let table_len = match T::MAX_SEGMENTS.min(size) {
            segments if features.indirect && segments > 1 => segments,
            _ => 0,
        };
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
            Order::Same {
                waiting: VecDeque::with_capacity(usize::from(size)),
                batch: None,
            }
        } else {
            Order::Any
        };
        Ok(Self {
            ring,
            size,
            table_len,
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
        let plan = match self.plan(&chain) {
            Ok(plan) => plan,
            Err(reason) => return Err(AddError { chain, reason }),
        };
        let id = self.ring.add(&chain, &plan);
        self.free -= plan.descriptors;
        let slot = &mut self.slots[usize::from(id)];
        slot.position = self.added;
        slot.descriptors = plan.descriptors;
        slot.writable = plan.writable;
        slot.chain = Some(chain);
        if let Order::Same { waiting, .. } = &mut self.order {
            waiting.push_back(id);
        }
        self.added += 1;
        Ok(Token(id))
    }

    /// Lets the device see every chain added so far, and says whether it wants to be notified.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        let batch = self.added - self.published;
        if batch == 0 {
            return Notify::NotNeeded;
        }
        let needed = self.ring.publish();
        self.published = self.added;
        self.in_flight += u16::try_from(batch).expect("no more chains than descriptors");
        self.statistics.count_added(batch);
        if needed {
            self.statistics.count_kick();
            Notify::Needed
        } else {
            self.statistics.count_suppressed();
            Notify::NotNeeded
        }
    }

    /// What a notification tells the device besides the queue's index, with
    /// `VIRTIO_F_NOTIFICATION_DATA` (VIRTIO 1.2, 2.9).
    #[must_use]
    pub fn place(&self) -> u16 {
        self.ring.place()
    }

    /// Whether the device has used a chain that has not been taken back. Says nothing about its honesty.
    #[must_use]
    pub fn has_used(&self) -> bool {
        let in_batch = matches!(self.order, Order::Same { batch: Some(_), .. });
        in_batch || !self.set_aside.is_empty() || self.ring.has_used()
    }

    /// A look at the used index from outside of the queue; `None` for a packed ring, which has none.
    #[must_use]
    pub fn used_watch(&self) -> Option<UsedWatch> {
        self.ring.used_watch()
    }

    /// Takes back the next chain that the device has used.
    ///
    /// # Errors
    /// [`Broken`], at the first lie of the device and ever after. The chains in flight stay with the
    /// queue until [`Queue::reclaim`].
    #[inline]
    pub fn take(&mut self) -> Result<Option<Used<T>>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if !self.set_aside.is_empty() {
            return Ok(self.take_set_aside());
        }
        self.take_from_ring()
    }

    /// Asks for an interrupt at the next used chain, and says whether one is there already.
    pub fn enable_interrupts(&mut self) -> Pending {
        let used = self.ring.enable_interrupts() || self.has_used();
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
        self.slots.iter_mut().find_map(|slot| slot.chain.take())
    }

    /// Starts afresh after a reset of the queue (`VIRTIO_F_RING_RESET`) or of the device, as it was made;
    /// chains that were in flight are dropped.
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
        if let Order::Same { waiting, batch } = &mut self.order {
            waiting.clear();
            *batch = None;
        }
        self.free = self.size;
        self.published = self.added;
        self.in_flight = 0;
        self.broken = None;
        Ok(())
    }

    #[cold]
    fn take_set_aside(&mut self) -> Option<Used<T>> {
        self.set_aside.pop_front()
    }

    #[inline]
    fn take_from_ring(&mut self) -> Result<Option<Used<T>>, Broken> {
        match self.next_used() {
            Ok(Some((id, written))) => Ok(Some(self.finish(id, written))),
            Ok(None) => Ok(None),
            Err(broken) => {
                self.broken = Some(broken);
                Err(broken)
            }
        }
    }

    /// Checks a chain against the limits and decides how it will lie in the ring.
    #[inline]
    fn plan(&self, chain: &T) -> Result<Plan, AddReason> {
        if let Some(broken) = self.broken {
            return Err(AddReason::Broken(broken));
        }
        let plan = Plan::new(chain, self.size, self.table_len)?;
        if self.free < plan.descriptors {
            Err(AddReason::Full)
        } else {
            Ok(plan)
        }
    }

    /// The id of the next used chain and what was written to it, after checking everything that the
    /// device says of it.
    #[inline]
    fn next_used(&mut self) -> Result<Option<(u16, u32)>, Broken> {
        if let Order::Same {
            batch: Some((last, written)),
            ..
        } = self.order
        {
            return self.next_in_order(last, written).map(Some);
        }
        let Some(claim) = self.ring.peek(self.in_flight)? else {
            return Ok(None);
        };
        self.check(&claim)?;
        match self.order {
            Order::Any => Ok(Some((claim.id, claim.written))),
            Order::Same { .. } => self.next_in_order(claim.id, claim.written).map(Some),
        }
    }

    /// Compares what the device says with the books.
    #[inline]
    fn check(&self, claim: &Claim) -> Result<(), Broken> {
        let slot = self.slots.get(usize::from(claim.id)).ok_or(Broken::BadId)?;
        if slot.chain.is_none() || slot.position >= self.published {
            return Err(Broken::NotInFlight);
        }
        if claim.written > slot.writable {
            return Err(Broken::BadLength);
        }
        if let Order::Same { waiting, .. } = &self.order {
            let oldest = waiting.front().ok_or(Broken::NotInFlight)?;
            let skipped = slot.position - self.slots[usize::from(*oldest)].position;
            if skipped >= u64::from(claim.chains) {
                return Err(Broken::BadBatch);
            }
        }
        Ok(())
    }

    /// Takes the oldest chain of a batch that ends with `last`. Those before it are used completely
    /// (VIRTIO 1.2, 2.7.9).
    fn next_in_order(&mut self, last: u16, written: u32) -> Result<(u16, u32), Broken> {
        let Order::Same { waiting, batch } = &mut self.order else {
            unreachable!("the callers know the order");
        };
        let id = waiting.pop_front().ok_or(Broken::NotInFlight)?;
        // It may have been reclaimed.
        if self.slots[usize::from(id)].chain.is_none() {
            return Err(Broken::NotInFlight);
        }
        *batch = (id != last).then_some((last, written));
        let written = if id == last {
            written
        } else {
            self.slots[usize::from(id)].writable
        };
        Ok((id, written))
    }

    /// Closes the books on a chain that is in flight.
    #[inline]
    fn finish(&mut self, id: u16, written: u32) -> Used<T> {
        let slot = &mut self.slots[usize::from(id)];
        let chain = slot
            .chain
            .take()
            .expect("the chain has been found in flight");
        self.ring.release(id, slot.descriptors);
        self.free += slot.descriptors;
        self.in_flight -= 1;
        self.statistics.count_used();
        Used {
            token: Token(id),
            chain,
            written,
        }
    }
}

impl<T: Chain> Drop for Queue<T> {
    fn drop(&mut self) {
        if self.hold.is_held() {
            for slot in &mut self.slots {
                mem::forget(slot.chain.take());
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
