//! The driver side of a virtqueue.
//!
//! A queue owns the chains that are with the device. It keeps its own books in private memory: free
//! descriptors, who is in flight, how much the device may have written. What the device writes, an
//! index and pairs of id and length, is read once and checked against those books; the first lie
//! marks the queue [`Broken`], for good.
//!
//! Source: VIRTIO 1.2, 2.7.13 (supplying buffers), 2.7.14 (receiving used buffers).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::sync::atomic::{Ordering, fence};

use crate::split::{AVAIL_F_NO_INTERRUPT, Descriptor, F_INDIRECT, F_NEXT, F_WRITE, SplitRing};
use crate::{Chain, DeviceHold, DmaAddr, DmaAllocator, DmaError, Segment, Statistics};

/// The largest size of a split queue (VIRTIO 1.2, 2.7).
const SIZE_MAX: u16 = 32768;

/// What driver and device have agreed on that changes the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// `VIRTIO_F_EVENT_IDX`: notifications and interrupts by index instead of by flag.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`: a chain may take one descriptor that names a table of the others.
    pub indirect: bool,
}

/// How a queue is made.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Entries: a power of two, at most 32768.
    pub size: u16,
    /// What the device wants each part of the ring aligned to, in bytes, if more than the
    /// specification does: a power of two, or 1.
    pub align: usize,
    /// What was negotiated.
    pub features: RingFeatures,
}

/// Where the parts of a ring lie, for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor area: the descriptor table.
    pub descriptor: DmaAddr,
    /// Driver area: the available ring.
    pub driver: DmaAddr,
    /// Device area: the used ring.
    pub device: DmaAddr,
}

/// Why a queue could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The size is zero, not a power of two, or above 32768.
    #[error("a queue's size must be a power of two up to 32768")]
    BadSize,
    /// The alignment is not a power of two.
    #[error("a queue's alignment must be a power of two")]
    BadAlignment,
    /// No memory for the ring.
    #[error(transparent)]
    Memory(#[from] DmaError),
}

/// A chain that could not be added, and why.
pub struct AddError<T> {
    /// The chain, untouched.
    pub chain: T,
    /// Why.
    pub reason: AddReason,
}

/// Why a chain could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddReason {
    /// Too few free descriptors; try again after a [`Queue::take`].
    #[error("the queue is full")]
    Full,
    /// The chain has no segment, or one of length zero.
    #[error("the chain has no segment, or an empty one")]
    Empty,
    /// More segments than the queue has entries or the chain's type has promised, or more than 4 GiB.
    #[error("the chain is too long")]
    TooLong,
    /// The queue is broken.
    #[error(transparent)]
    Broken(Broken),
}

impl<T> fmt::Debug for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// How the device broke the rules. The queue takes nothing more; the device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It claims to have used more chains than it was given.
    #[error("the device used more chains than it was given")]
    UsedIndex,
    /// It returned an id that names no descriptor.
    #[error("the device returned an id outside the ring")]
    BadId,
    /// It returned a chain that it does not have: never given, or returned before.
    #[error("the device returned a chain that it does not have")]
    NotInFlight,
    /// It claims to have written more than it was lent.
    #[error("the device wrote more than the chain holds")]
    BadLength,
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

/// What the queue knows about the descriptor that heads a chain.
struct Slot<T> {
    chain: Option<T>,
    /// When it was added, counted from the queue's beginning: it tells what has been published.
    position: u64,
    /// The last descriptor of the chain in the ring.
    tail: u16,
    /// How many descriptors of the ring it takes.
    descriptors: u16,
    /// How much the device may write.
    writable: u32,
}

/// The driver side of a split virtqueue.
pub struct Queue<T: Chain> {
    ring: SplitRing,
    features: RingFeatures,
    slots: Box<[Slot<T>]>,
    /// The free list: for each descriptor the next one, of its chain or of the free ones.
    next: Box<[u16]>,
    free_head: u16,
    free: u16,
    /// Chains ever added, and ever published. Their low 16 bits are ring indices.
    added: u64,
    published: u64,
    /// Chains published and not yet taken back.
    in_flight: u16,
    last_used: u16,
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
        let QueueConfig {
            size,
            align,
            features,
        } = *config;
        if !size.is_power_of_two() || size > SIZE_MAX {
            return Err(CreateError::BadSize);
        }
        if !align.is_power_of_two() {
            return Err(CreateError::BadAlignment);
        }
        let table_len = match T::MAX_SEGMENTS {
            segments if features.indirect && segments > 1 => segments.min(size),
            _ => 0,
        };
        let ring = SplitRing::new(size, align, table_len, dma, hold)?;
        let slots = (0..size).map(|_| Slot {
            chain: None,
            position: 0,
            tail: 0,
            descriptors: 0,
            writable: 0,
        });
        Ok(Self {
            ring,
            features: RingFeatures {
                indirect: table_len > 1,
                ..features
            },
            slots: slots.collect(),
            next: (1..=size)
                .map(|next| next & (size - 1))
                .collect::<Vec<_>>()
                .into(),
            free_head: 0,
            free: size,
            added: 0,
            published: 0,
            in_flight: 0,
            last_used: 0,
            broken: None,
            hold: Arc::clone(hold),
            statistics: Arc::default(),
        })
    }

    /// Where the device finds the ring.
    #[must_use]
    pub fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptor: self.ring.descriptor_addr(),
            driver: self.ring.avail_addr(),
            device: self.ring.used_addr(),
        }
    }

    /// How many descriptors there are.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size()
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
    pub fn add(&mut self, chain: T) -> Result<Token, AddError<T>> {
        let plan = match self.plan(&chain) {
            Ok(plan) => plan,
            Err(reason) => return Err(AddError { chain, reason }),
        };
        let head = self.free_head;
        let tail = if plan.indirect {
            self.write_indirect(head, &chain, plan.segments);
            head
        } else {
            self.write_direct(head, &chain, plan.segments)
        };
        self.free_head = self.next[usize::from(tail)];
        self.free -= plan.descriptors;
        self.slots[usize::from(head)] = Slot {
            chain: Some(chain),
            position: self.added,
            tail,
            descriptors: plan.descriptors,
            writable: plan.writable,
        };
        self.ring.write_avail(low16(self.added), head);
        self.added += 1;
        Ok(Token(head))
    }

    /// Lets the device see every chain added so far, and says whether it wants to be notified.
    pub fn publish(&mut self) -> Notify {
        let batch = self.added - self.published;
        if batch == 0 {
            return Notify::NotNeeded;
        }
        let (old, new) = (low16(self.published), low16(self.added));
        self.ring.publish(new);
        self.published = self.added;
        self.in_flight += low16(batch);
        self.statistics.count_added(batch);
        // VIRTIO 1.2, 2.7.13.4.1: the index must be visible before the device's wish is read, or both
        // sides could miss each other.
        fence(Ordering::SeqCst);
        let needed = if self.features.event_idx {
            crossed(self.ring.avail_event(), old, new)
        } else {
            !self.ring.no_notify()
        };
        if needed {
            self.statistics.count_kick();
            Notify::Needed
        } else {
            self.statistics.count_suppressed();
            Notify::NotNeeded
        }
    }

    /// Whether the device has used a chain that has not been taken back. Says nothing about its honesty.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.ring.used_index() != self.last_used
    }

    /// Takes back the next chain that the device has used.
    ///
    /// # Errors
    /// [`Broken`], at the first lie of the device and ever after. The chains in flight stay with the
    /// queue until [`Queue::reclaim`].
    pub fn take(&mut self) -> Result<Option<Used<T>>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let waiting = self.ring.used_index().wrapping_sub(self.last_used);
        if waiting == 0 {
            return Ok(None);
        }
        let result = self.take_one(waiting);
        if let Err(broken) = result {
            self.broken = Some(broken);
        }
        result.map(Some)
    }

    /// Asks for an interrupt at the next used chain, and says whether one is there already.
    pub fn enable_interrupts(&mut self) -> Pending {
        if self.features.event_idx {
            self.ring.set_used_event(self.last_used);
        } else {
            self.ring.set_avail_flags(0);
        }
        // VIRTIO 1.2, 2.7.14: the wish must be visible before the used index is read again.
        fence(Ordering::SeqCst);
        if self.has_used() {
            Pending::Yes
        } else {
            Pending::No
        }
    }

    /// Asks for no interrupts. The device may still raise one that was under way.
    pub fn disable_interrupts(&mut self) {
        if self.features.event_idx {
            // The index furthest away: the device passes it after 65535 more chains.
            self.ring.set_used_event(self.last_used.wrapping_sub(1));
        } else {
            self.ring.set_avail_flags(AVAIL_F_NO_INTERRUPT);
        }
    }

    /// Gives back a chain that the device never returned, once it cannot touch memory any more.
    /// `None` while the [`DeviceHold`] is held, and when no chain is left. The queue is of no further use.
    pub fn reclaim(&mut self) -> Option<T> {
        if self.hold.is_held() {
            return None;
        }
        self.slots.iter_mut().find_map(|slot| slot.chain.take())
    }

    /// Checks a chain against the limits and decides how it will lie in the ring.
    fn plan(&self, chain: &T) -> Result<Plan, AddReason> {
        if let Some(broken) = self.broken {
            return Err(AddReason::Broken(broken));
        }
        let segments = chain.readable().len() + chain.writable().len();
        // VIRTIO 1.2, 2.7.5.3.1: no chain is longer than the queue, indirect or not.
        let limit = T::MAX_SEGMENTS.min(self.ring.size());
        let segments = match u16::try_from(segments) {
            Ok(0) => return Err(AddReason::Empty),
            Ok(segments) if segments <= limit => segments,
            _ => return Err(AddReason::TooLong),
        };
        let readable = total(chain.readable())?;
        let writable = total(chain.writable())?;
        // VIRTIO 1.2, 2.7.5: no chain is longer than 2^32 bytes.
        readable.checked_add(writable).ok_or(AddReason::TooLong)?;
        let indirect = self.features.indirect && segments > 1;
        let descriptors = if indirect { 1 } else { segments };
        if self.free < descriptors {
            return Err(AddReason::Full);
        }
        Ok(Plan {
            segments,
            descriptors,
            indirect,
            writable,
        })
    }

    /// Writes the chain over free descriptors, and returns the last.
    fn write_direct(&self, head: u16, chain: &T, segments: u16) -> u16 {
        let mut index = head;
        let mut tail = head;
        for (segment, flags) in flagged(chain, segments) {
            let next = self.next[usize::from(index)];
            self.ring.write_descriptor(
                index,
                Descriptor {
                    segment,
                    flags,
                    next,
                },
            );
            tail = index;
            index = next;
        }
        tail
    }

    /// Writes the chain into the table of `head`, and `head` to name the table.
    fn write_indirect(&self, head: u16, chain: &T, segments: u16) {
        for (index, (segment, flags)) in (0..).zip(flagged(chain, segments)) {
            let next = index + 1;
            self.ring.write_indirect(
                head,
                index,
                Descriptor {
                    segment,
                    flags,
                    next,
                },
            );
        }
        let segment = self.ring.indirect_segment(head, segments);
        self.ring.write_descriptor(
            head,
            Descriptor {
                segment,
                flags: F_INDIRECT,
                next: 0,
            },
        );
    }

    /// Takes the next of `waiting` used chains, after checking everything that the device says of it.
    fn take_one(&mut self, waiting: u16) -> Result<Used<T>, Broken> {
        if waiting > self.in_flight {
            return Err(Broken::UsedIndex);
        }
        let (id, written) = self.ring.used_entry(self.last_used);
        let head = u16::try_from(id).map_err(|_| Broken::BadId)?;
        let slot = self.slots.get_mut(usize::from(head)).ok_or(Broken::BadId)?;
        if slot.position >= self.published {
            return Err(Broken::NotInFlight);
        }
        if written > slot.writable {
            return Err(Broken::BadLength);
        }
        let chain = slot.chain.take().ok_or(Broken::NotInFlight)?;
        self.next[usize::from(slot.tail)] = self.free_head;
        self.free_head = head;
        self.free += slot.descriptors;
        self.in_flight -= 1;
        self.last_used = self.last_used.wrapping_add(1);
        self.statistics.count_used();
        Ok(Used {
            token: Token(head),
            chain,
            written,
        })
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
            .field("features", &self.features)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

/// How a chain will lie in the ring.
struct Plan {
    segments: u16,
    descriptors: u16,
    indirect: bool,
    writable: u32,
}

/// The segments of a chain, first those the device reads, each with its descriptor's flags.
fn flagged<T: Chain>(chain: &T, segments: u16) -> impl Iterator<Item = (Segment, u16)> {
    let readable = chain.readable().map(|segment| (segment, 0));
    let writable = chain.writable().map(|segment| (segment, F_WRITE));
    let all = readable.chain(writable).take(usize::from(segments));
    all.zip((0..segments).rev())
        .map(|((segment, flags), left)| {
            let next = if left > 0 { F_NEXT } else { 0 };
            (segment, flags | next)
        })
}

/// The length of some segments together.
fn total(segments: impl Iterator<Item = Segment>) -> Result<u32, AddReason> {
    let mut sum = 0u32;
    for segment in segments {
        if segment.len == 0 {
            return Err(AddReason::Empty);
        }
        sum = sum.checked_add(segment.len).ok_or(AddReason::TooLong)?;
    }
    Ok(sum)
}

/// Whether going from `old` to `new` passes `event`, modulo 2^16 (VIRTIO 1.2, 2.7.10.1).
fn crossed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The ring index of a count.
#[expect(
    clippy::cast_possible_truncation,
    reason = "ring indices are counts modulo 2^16"
)]
fn low16(count: u64) -> u16 {
    count as u16
}
