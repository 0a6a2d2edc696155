//! A packed ring, as the driver writes it (VIRTIO 1.2, 2.8).
//!
//! One ring of descriptors serves both ways. A descriptor's flags say whose it is: each side has a
//! wrap counter that it flips at the end of the ring and writes into its flag.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::mem;
use core::sync::atomic::Ordering;

use super::error::Broken;
use super::indirect::{Format, IndirectTables};
use super::memory::RingMemory;
use super::plan::{Plan, flagged};
use super::ring::{Claim, RingConfig};
use super::{Chain, DeviceHold};
use crate::format::{
    DESCRIPTOR, EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, F_AVAIL, F_INDIRECT, F_USED,
    RingAddresses, RingState, crossed,
};
use crate::handshake::publish_then_check;
use crate::{DmaAllocator, DmaError, Segment};

/// A place in the ring, with the wrap counter there.
#[derive(Clone, Copy)]
struct Place {
    index: u16,
    wrap: bool,
}

/// The driver's end of a packed ring.
pub(super) struct PackedRing {
    memory: RingMemory,
    tables: Option<IndirectTables>,
    size: u16,
    /// Where the driver's and the device's event suppression start.
    driver_event: usize,
    device_event: usize,
    event_idx: bool,
    /// For each id the next free one.
    next: Box<[u16]>,
    free_id: u16,
    avail: Place,
    used: Place,
    /// Descriptors added since the last publication.
    unpublished: u16,
    /// The first of them, with the flags that make it available and all others with it.
    gate: Option<(u16, u16)>,
}

impl PackedRing {
    pub(super) fn new(
        config: &RingConfig,
        index: u16,
        wrap: bool,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        let size = usize::from(config.size);
        let align = config.align.max(DESCRIPTOR);
        let driver_event = (size * DESCRIPTOR).next_multiple_of(align);
        let device_event = driver_event + align;
        let tables = config.tables(Format::Packed, dma, hold)?;
        let start = Place { index, wrap };
        let mut ring = Self {
            memory: RingMemory::new(dma, device_event + 4, align, hold)?,
            tables,
            size: config.size,
            driver_event,
            device_event,
            event_idx: config.features.event_idx,
            next: vec![0; size].into(),
            free_id: 0,
            avail: start,
            used: start,
            unpublished: 0,
            gate: None,
        };
        ring.restart(index, wrap);
        Ok(ring)
    }

    /// Starts afresh, with nothing in the ring, at `index` and `wrap`.
    pub(super) fn restart(&mut self, index: u16, wrap: bool) {
        for (id, next) in (1..).zip(&mut self.next) {
            *next = if id == self.size { 0 } else { id };
        }
        self.free_id = 0;
        self.rewind(index, wrap);
    }

    /// Goes to `index` and `wrap` with an empty ring. Chains keep their ids.
    pub(super) fn rewind(&mut self, index: u16, wrap: bool) {
        self.avail = Place { index, wrap };
        self.used = self.avail;
        (self.unpublished, self.gate) = (0, None);
        // Behind the start the ring looks used in this lap, before it used in the last: to neither side
        // does a descriptor seem to be there.
        for place in 0..self.size {
            let lap = if place < index { wrap } else { !wrap };
            self.write(place, NOWHERE, 0, used_in(lap));
        }
        self.store_event(self.driver_event, 0, EVENT_F_ENABLE);
        self.store_event(self.device_event, 0, EVENT_F_ENABLE);
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptor: self.memory.addr(0),
            driver: self.memory.addr(self.driver_event),
            device: self.memory.addr(self.device_event),
        }
    }

    pub(super) fn state(&self) -> RingState {
        RingState::Packed {
            index: self.used.index,
            wrap: self.used.wrap,
        }
    }

    #[inline]
    pub(super) fn next_id(&self) -> u16 {
        self.free_id
    }

    #[inline]
    pub(super) fn add<T: Chain>(&mut self, chain: &T, plan: &Plan) -> u16 {
        let id = self.free_id;
        self.free_id = self.next[usize::from(id)];
        self.put(id, chain, plan);
        id
    }

    /// Writes a chain into the next descriptors.
    #[inline]
    pub(super) fn put<T: Chain>(&mut self, id: u16, chain: &T, plan: &Plan) {
        match &self.tables {
            Some(tables) if plan.is_indirect() => {
                let table = tables.write(id, chain, plan.segments);
                self.put_segment(table, id, F_INDIRECT);
            }
            _ => {
                for (segment, flags) in flagged(chain, plan.segments) {
                    self.put_segment(segment, id, flags);
                }
            }
        }
        self.unpublished += plan.descriptors;
    }

    /// Writes the next descriptor. The first since the last publication stays closed to the device, and
    /// with it everything behind, because the device takes them in order.
    #[inline]
    fn put_segment(&mut self, segment: Segment, id: u16, flags: u16) {
        let Place { index, wrap } = self.avail;
        let open = flags | available_in(wrap);
        if self.gate.is_some() {
            self.write(index, segment, id, open);
        } else {
            self.write_closed(index, segment, id);
            self.gate = Some((index, open));
        }
        self.avail = self.avail.after(1, self.size);
    }

    #[inline]
    fn write(&self, index: u16, segment: Segment, id: u16, flags: u16) {
        let offset = usize::from(index) * DESCRIPTOR;
        let rest = u64::from(id) << 32 | u64::from(flags) << 48;
        self.memory.store_descriptor(offset, segment, rest);
    }

    /// Writes a descriptor and leaves its flags as they are, closed to both sides since the last lap: the
    /// device may be reading them, and accesses that race must be of one size.
    #[inline]
    fn write_closed(&self, index: u16, segment: Segment, id: u16) {
        let offset = usize::from(index) * DESCRIPTOR;
        self.memory.store64(offset, segment.addr.0);
        self.memory.store32(offset + 8, segment.len);
        self.memory.store16(offset + 12, id, Ordering::Relaxed);
    }

    /// Shows the device what was added, and says whether it wants to be notified.
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let gate = self.gate.take();
        let batch = mem::take(&mut self.unpublished);
        let open = || {
            if let Some((index, flags)) = gate {
                let offset = usize::from(index) * DESCRIPTOR + 14;
                self.memory.store16(offset, flags, Ordering::Release);
            }
        };
        publish_then_check(open, || {
            let event = self.memory.load32(self.device_event).to_le_bytes();
            match u16::from_le_bytes([event[2], event[3]]) & 3 {
                EVENT_F_DISABLE => false,
                EVENT_F_DESC if self.event_idx => {
                    self.passed(u16::from_le_bytes([event[0], event[1]]), batch)
                }
                _ => true,
            }
        })
    }

    /// Whether the last `batch` descriptors include the one of this event (VIRTIO 1.2, 2.8.14).
    fn passed(&self, event: u16, batch: u16) -> bool {
        let wanted = Place {
            index: event & 0x7fff,
            wrap: event >> 15 != 0,
        };
        let lap = if wanted.wrap == self.avail.wrap {
            0
        } else {
            self.size
        };
        let new = self.avail.index;
        crossed(wanted.index.wrapping_sub(lap), new.wrapping_sub(batch), new)
    }

    /// What goes with a notification (VIRTIO 1.2, 2.9): the next place and its wrap counter.
    pub(super) fn place(&self) -> u16 {
        self.avail.encode()
    }

    #[inline]
    pub(super) fn has_used(&self) -> bool {
        let offset = usize::from(self.used.index) * DESCRIPTOR + 14;
        let flags = self.memory.load16(offset, Ordering::Acquire);
        flags & (F_AVAIL | F_USED) == used_in(self.used.wrap)
    }

    /// What the device says of the next used chain.
    #[inline]
    pub(super) fn peek(&self, in_flight: u16) -> Result<Option<Claim>, Broken> {
        if !self.has_used() {
            return Ok(None);
        }
        if in_flight == 0 {
            return Err(Broken::UsedIndex);
        }
        let offset = usize::from(self.used.index) * DESCRIPTOR;
        let written = self.memory.load32(offset + 8);
        let id = self.memory.load16(offset + 12, Ordering::Relaxed);
        Ok(Some(Claim {
            id,
            written,
            chains: in_flight,
        }))
    }

    /// Frees the id and the `descriptors` of a chain that was taken back.
    #[inline]
    pub(super) fn release(&mut self, id: u16, descriptors: u16) {
        self.next[usize::from(id)] = self.free_id;
        self.free_id = id;
        self.used = self.used.after(descriptors, self.size);
    }

    /// Asks for interrupts, and says whether a used chain is there already.
    pub(super) fn enable_interrupts(&self) -> bool {
        let ask = || {
            if self.event_idx {
                self.store_event(self.driver_event, self.used.encode(), EVENT_F_DESC);
            } else {
                self.store_event(self.driver_event, 0, EVENT_F_ENABLE);
            }
        };
        publish_then_check(ask, || self.has_used())
    }

    pub(super) fn disable_interrupts(&self) {
        self.store_event(self.driver_event, 0, EVENT_F_DISABLE);
    }

    fn store_event(&self, offset: usize, place: u16, flags: u16) {
        self.memory
            .store32(offset, u32::from(place) | u32::from(flags) << 16);
    }
}

impl Place {
    /// The place `count` descriptors further on; `count` is at most the ring's size.
    #[inline]
    fn after(self, count: u16, size: u16) -> Self {
        let index = self.index + count;
        if index < size {
            Self { index, ..self }
        } else {
            Self {
                index: index - size,
                wrap: !self.wrap,
            }
        }
    }

    /// As event suppression and notifications have it.
    fn encode(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }
}

/// The flags of a descriptor that the driver has made available in a lap.
#[inline]
fn available_in(wrap: bool) -> u16 {
    if wrap { F_AVAIL } else { F_USED }
}

/// The flags of a descriptor that the device has used in a lap.
#[inline]
fn used_in(wrap: bool) -> u16 {
    if wrap { F_AVAIL | F_USED } else { 0 }
}

const NOWHERE: Segment = Segment::described(crate::DmaAddr(0), 0);
