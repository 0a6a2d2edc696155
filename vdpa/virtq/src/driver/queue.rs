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
use alloc::vec;
use core::fmt;
use core::mem;

use super::error::{AddError, AddReason, Broken, CreateError, StillHeld};
use super::plan::{Plan, Room};
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
    Same(Line),
}

/// The chains in the ring, in the order in which they were added.
struct Line {
    /// The id of each, at its position modulo the length, which is a power of two.
    ids: Box<[u16]>,
    /// The position behind the last chain of a batch that the device has used, and what it wrote into that one.
    batch_end: u64,
    written: u32,
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
            Order::Same(Line {
                ids: vec![0; usize::from(size).next_power_of_two()].into(),
                batch_end: 0,
                written: 0,
            })
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
        match self.enter(&chain) {
            Ok((token, slot)) => {
                *slot = Some(chain);
                Ok(token)
            }
            Err(reason) => Err(AddError { chain, reason }),
        }
    }

    /// Adds the chain that is there, and takes it.
    #[inline]
    pub(super) fn add_from(&mut self, chain: &mut Option<T>) -> Result<Token, AddReason> {
        let (token, slot) = self.enter(chain.as_ref().ok_or(AddReason::Empty)?)?;
        *slot = chain.take();
        Ok(token)
    }

    /// Which chain the next one to be added will be, if there is room.
    #[inline]
    pub(super) fn next_token(&self) -> Token {
        Token(self.ring.next_id())
    }

    /// Writes a chain into the ring, and names the place where it has to stay.
    #[inline(always)]
    fn enter(&mut self, chain: &T) -> Result<(Token, &mut Option<T>), AddReason> {
        let plan = self.plan(chain)?;
        let id = self.ring.add(chain, &plan);
        self.free -= plan.descriptors;
        if let Order::Same(line) = &mut self.order {
            line.push(self.added, id);
        }
        let slot = &mut self.slots[usize::from(id)];
        slot.position = self.added;
        slot.descriptors = plan.descriptors;
        slot.writable = plan.writable;
        self.added += 1;
        Ok((Token(id), &mut slot.chain))
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
        self.has_found() || self.ring.has_used()
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
        if !self.set_aside.is_empty() && self.broken.is_none() {
            return Ok(self.take_set_aside());
        }
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.next_used() {
            Ok(Some((id, written))) => {
                let chain = self.finish(id).take();
                let token = Token(id);
                Ok(chain.map(|chain| Used {
                    token,
                    chain,
                    written,
                }))
            }
            Ok(None) => Ok(None),
            Err(broken) => {
                self.broken = Some(broken);
                Err(broken)
            }
        }
    }

    /// As [`Queue::take`], but leaves the chain with the queue until [`Queue::fetch`], or until
    /// [`Queue::next_token`] is added. What a rewind has set aside is not returned.
    #[inline]
    pub(super) fn take_token(&mut self) -> Result<Option<(Token, u32)>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.next_used() {
            Ok(Some((id, written))) => {
                self.finish(id);
                Ok(Some((Token(id), written)))
            }
            Ok(None) => Ok(None),
            Err(broken) => {
                self.broken = Some(broken);
                Err(broken)
            }
        }
    }

    /// The chain of a token that was taken.
    #[inline]
    pub(super) fn fetch(&mut self, token: Token, written: u32) -> Option<Used<T>> {
        let chain = self.slots[token.index()].chain.take()?;
        Some(Used {
            token,
            chain,
            written,
        })
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
        if let Order::Same(line) = &mut self.order {
            line.batch_end = self.added;
        }
        self.free = self.size;
        self.published = self.added;
        self.in_flight = 0;
        self.broken = None;
        Ok(())
    }

    /// The next chain that a rewind has set aside.
    #[cold]
    pub(super) fn take_set_aside(&mut self) -> Option<Used<T>> {
        self.set_aside.pop_front()
    }

    /// Whether a used chain is known that has left the ring already.
    #[inline]
    fn has_found(&self) -> bool {
        let in_batch = match &self.order {
            Order::Any => false,
            Order::Same(line) => line.batch_end > self.oldest(),
        };
        in_batch || !self.set_aside.is_empty()
    }

    /// In order, the position of the chain that the device returns next.
    #[inline]
    fn oldest(&self) -> u64 {
        self.published - u64::from(self.in_flight)
    }

    /// Checks a chain against the limits and decides how it will lie in the ring.
    #[inline]
    fn plan(&self, chain: &T) -> Result<Plan, AddReason> {
        if let Some(broken) = self.broken {
            return Err(AddReason::Broken(broken));
        }
        let room = Room {
            size: self.size,
            free: self.free,
            table_len: self.table_len,
        };
        Plan::new(chain, &room)
    }

    /// The id of the next used chain and what was written to it, after checking everything that the
    /// device says of it.
    #[inline]
    fn next_used(&mut self) -> Result<Option<(u16, u32)>, Broken> {
        if let Order::Same(line) = &self.order
            && line.batch_end > self.oldest()
        {
            return self.next_in_line(self.oldest()).map(Some);
        }
        let Some(claim) = self.ring.peek(self.in_flight)? else {
            return Ok(None);
        };
        let position = self.check(&claim)?;
        let Order::Same(line) = &mut self.order else {
            return Ok(Some((claim.id, claim.written)));
        };
        let oldest = self.published - u64::from(self.in_flight);
        let skipped = position - oldest;
        if skipped >= u64::from(claim.chains) {
            return Err(Broken::BadBatch);
        }
        line.batch_end = position + 1;
        line.written = claim.written;
        if skipped == 0 {
            return Ok(Some((claim.id, claim.written)));
        }
        self.next_in_line(oldest).map(Some)
    }

    /// Compares what the device says with the books, and tells when the chain was added.
    #[inline]
    fn check(&self, claim: &Claim) -> Result<u64, Broken> {
        let slot = self.slots.get(usize::from(claim.id)).ok_or(Broken::BadId)?;
        if slot.descriptors == 0 || slot.position >= self.published {
            return Err(Broken::NotInFlight);
        }
        if claim.written > slot.writable {
            return Err(Broken::BadLength);
        }
        Ok(slot.position)
    }

    /// The oldest chain of a batch. Those before the last are used completely (VIRTIO 1.2, 2.7.9).
    fn next_in_line(&self, oldest: u64) -> Result<(u16, u32), Broken> {
        let Order::Same(line) = &self.order else {
            unreachable!("the callers know the order");
        };
        let id = line.id(oldest);
        let slot = &self.slots[usize::from(id)];
        // It may have been reclaimed.
        if slot.descriptors == 0 {
            return Err(Broken::NotInFlight);
        }
        let is_last = oldest + 1 == line.batch_end;
        Ok((id, if is_last { line.written } else { slot.writable }))
    }

    /// Closes the books on a chain that is in flight, and tells where it is.
    #[inline]
    fn finish(&mut self, id: u16) -> &mut Option<T> {
        let slot = &mut self.slots[usize::from(id)];
        let descriptors = mem::take(&mut slot.descriptors);
        self.ring.release(id, descriptors);
        self.free += descriptors;
        self.in_flight -= 1;
        self.statistics.count_used();
        &mut slot.chain
    }
}

impl Line {
    /// The chain at `position` is `id`.
    #[inline]
    fn push(&mut self, position: u64, id: u16) {
        let place = self.place(position);
        self.ids[place] = id;
    }

    #[inline]
    fn id(&self, position: u64) -> u16 {
        self.ids[self.place(position)]
    }

    #[inline]
    fn place(&self, position: u64) -> usize {
        // Only the lowest bits count.
        position as usize & (self.ids.len() - 1)
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
