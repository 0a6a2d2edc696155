//! A split ring, as the driver writes it (VIRTIO 1.2, 2.7).
//!
//! The free list and the shape of the chains in flight are kept in private memory; what the device
//! could have overwritten is never read back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::Ordering;

use super::chain::{Plan, describe};
use super::memory::{Format, IndirectTables, RingMemory};
use super::ring_config::RingConfig;
use super::types::Claim;
use super::{Chain, DeviceHold, UsedWatch};
use crate::dma::PAGE;
use crate::doorbell::publish_then_check;
use crate::format::{
    AVAIL_F_NO_INTERRUPT, DESCRIPTOR, F_INDIRECT, RingAddresses, RingState, USED_F_NO_NOTIFY,
    crossed,
};
use crate::{DmaAllocator, DmaError, Segment};

/// The driver's end of a split ring.
pub(super) struct SplitRing {
    memory: RingMemory,
    tables: Option<IndirectTables>,
    mask: u16,
    /// Where the available and the used ring start.
    avail: usize,
    used: usize,
    event_idx: bool,
    in_order: bool,
    /// For each descriptor the next one, of its chain or of the free ones.
    next: Box<[u16]>,
    /// For the head of each chain in flight, its last descriptor.
    tail: Box<[u16]>,
    free_head: u16,
    added: u16,
    published: u16,
    last_used: u16,
}

impl SplitRing {
    pub(super) fn new(
        config: &RingConfig,
        index: u16,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        let size = usize::from(config.size);
        let align = config.align.max(DESCRIPTOR);
        let avail = (size * DESCRIPTOR).next_multiple_of(align);
        let used = (avail + 6 + 2 * size).next_multiple_of(align);
        let len = used + 6 + 8 * size;
        // The entries of a used ring lie at 4 modulo 8, and QEMU before 9.0 behind an IOMMU cannot
        // write one that straddles pages. From such a place on no ring of up to 256 descriptors has
        // one.
        let place = align.max(len.next_power_of_two().min(PAGE));
        let tables = config.tables(Format::Split, dma, hold)?;
        let mut ring = Self {
            memory: RingMemory::new(dma, len, place, hold)?,
            tables,
            mask: config.size - 1,
            avail,
            used,
            event_idx: config.features.event_idx,
            in_order: config.features.in_order,
            next: vec![0; size].into(),
            tail: vec![0; size].into(),
            free_head: 0,
            added: 0,
            published: 0,
            last_used: 0,
        };
        ring.restart(index);
        Ok(ring)
    }

    /// Starts afresh, with nothing in the ring, at `index`.
    pub(super) fn restart(&mut self, index: u16) {
        for (place, next) in (1..).zip(&mut self.next) {
            *next = place & self.mask;
        }
        self.free_head = 0;
        self.rewind(index);
    }

    /// Goes to `index` with empty rings. Chains keep their descriptors.
    pub(super) fn rewind(&mut self, index: u16) {
        (self.added, self.published, self.last_used) = (index, index, index);
        self.memory
            .store16(self.avail + 2, index, Ordering::Relaxed);
        self.memory.store16(self.used + 2, index, Ordering::Relaxed);
        self.memory
            .store16(self.used_event(), index, Ordering::Relaxed);
        self.memory
            .store16(self.avail_event(), index, Ordering::Relaxed);
        self.memory.store16(self.avail, 0, Ordering::Relaxed);
        self.memory.store16(self.used, 0, Ordering::Relaxed);
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptor: self.memory.addr(0),
            driver: self.memory.addr(self.avail),
            device: self.memory.addr(self.used),
        }
    }

    pub(super) fn state(&self) -> RingState {
        RingState::Split {
            index: self.last_used,
        }
    }

    /// Writes a chain into free descriptors, or into those that it has had before from `known` on,
    /// and names it in the next entry of the available ring.
    #[inline]
    pub(super) fn add<T: Chain>(&mut self, chain: &T, plan: &Plan, known: Option<u16>) -> u16 {
        let head = known.unwrap_or(self.free_head);
        let table = match &self.tables {
            Some(tables) if plan.table.is_none() && plan.is_indirect() => {
                Some(tables.write(head, chain, plan.segments))
            }
            _ => plan.table,
        };
        let tail = match table {
            Some(table) => {
                self.write(head, table, F_INDIRECT, 0);
                head
            }
            None => self.write_direct(head, chain, plan.segments),
        };
        let place = self.avail + 4 + 2 * usize::from(self.added & self.mask);
        self.memory.store16(place, head, Ordering::Relaxed);
        self.added = self.added.wrapping_add(1);
        if known.is_none() {
            self.tail[usize::from(head)] = tail;
            self.free_head = self.next[usize::from(tail)];
        }
        head
    }

    #[inline]
    fn write_direct<T: Chain>(&self, head: u16, chain: &T, segments: u16) -> u16 {
        let (mut index, mut tail) = (head, head);
        describe(chain, segments, |segment, flags| {
            let next = self.next[usize::from(index)];
            self.write(index, segment, flags, next);
            (tail, index) = (index, next);
        });
        tail
    }

    #[inline]
    fn write(&self, index: u16, segment: Segment, flags: u16, next: u16) {
        let offset = usize::from(index) * DESCRIPTOR;
        let rest = u64::from(flags) << 32 | u64::from(next) << 48;
        self.memory.store_descriptor(offset, segment, rest);
    }

    /// Shows the device what was added, and says whether it wants to be notified.
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.added);
        self.published = new;
        publish_then_check(
            || self.memory.store16(self.avail + 2, new, Ordering::Release),
            || {
                if self.event_idx {
                    let event = self.memory.load16(self.avail_event(), Ordering::Relaxed);
                    crossed(event, old, new)
                } else {
                    self.memory.load16(self.used, Ordering::Relaxed) & USED_F_NO_NOTIFY == 0
                }
            },
        )
    }

    /// What goes with a notification (VIRTIO 1.2, 2.9): the next available index.
    pub(super) fn place(&self) -> u16 {
        self.published
    }

    #[inline]
    pub(super) fn has_used(&self) -> bool {
        self.used_index() != self.last_used
    }

    /// What the device says of the next used chain.
    #[inline]
    pub(super) fn peek(&self) -> Option<Claim> {
        let waiting = self.used_index().wrapping_sub(self.last_used);
        if waiting == 0 {
            return None;
        }
        let offset = self.used + 4 + 8 * usize::from(self.last_used & self.mask);
        Some(Claim {
            id: self.memory.load32(offset),
            written: self.memory.load32(offset + 4),
            chains: waiting,
        })
    }

    /// Frees the descriptors of a chain that was taken back.
    #[inline]
    pub(super) fn release(&mut self, head: u16) {
        // In order, descriptors are taken in ring order and freed in ring order: there is no list.
        if !self.in_order {
            let tail = self.tail[usize::from(head)];
            self.next[usize::from(tail)] = self.free_head;
            self.free_head = head;
        }
        self.last_used = self.last_used.wrapping_add(1);
    }

    /// Asks for interrupts, and says whether a used chain is there already.
    pub(super) fn enable_interrupts(&self) -> bool {
        let ask = || {
            if self.event_idx {
                self.memory
                    .store16(self.used_event(), self.last_used, Ordering::Relaxed);
            } else {
                self.memory.store16(self.avail, 0, Ordering::Relaxed);
            }
        };
        publish_then_check(ask, || self.has_used())
    }

    pub(super) fn disable_interrupts(&self) {
        if self.event_idx {
            // The index furthest away, also from a device that has yet to judge what was taken
            // already.
            let never = self.last_used.wrapping_add(0x8000);
            self.memory
                .store16(self.used_event(), never, Ordering::Relaxed);
        } else {
            self.memory
                .store16(self.avail, AVAIL_F_NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    pub(super) fn used_watch(&self) -> UsedWatch {
        self.memory.watch(self.used + 2)
    }

    #[inline]
    fn used_index(&self) -> u16 {
        self.memory.load16(self.used + 2, Ordering::Acquire)
    }

    fn used_event(&self) -> usize {
        self.avail + 6 + 2 * usize::from(self.mask)
    }

    fn avail_event(&self) -> usize {
        self.used + 12 + 8 * usize::from(self.mask)
    }
}
