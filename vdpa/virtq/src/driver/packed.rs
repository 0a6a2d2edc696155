//! A packed ring, as the driver writes it (VIRTIO 1.2, 2.8).
//!
//! One ring of descriptors serves both ways. A descriptor's flags say whose it is: each side has a
//! wrap counter that it flips at the end of the ring and writes into its flag.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::mem;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use super::chain::{Plan, describe};
use super::memory::{Format, IndirectTables, PackedDescriptor, RingMemory};
use super::ring_config::RingConfig;
use super::types::Claim;
use super::{Chain, DeviceHold};
use crate::doorbell::publish_then_check;
use crate::format::{
    DESCRIPTOR, EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, F_AVAIL, F_INDIRECT, F_USED,
    RingAddresses, RingState, crossed,
};
use crate::{DmaAllocator, DmaError, Segment};

/// A place in the ring, with the wrap counter there.
#[derive(Clone, Copy)]
struct Place {
    index: u16,
    /// The wrap counter as the flags of a descriptor have it that is available there.
    available: u16,
}

/// What the driver reads and writes at the same time as the device. It is a part of the ring's
/// memory.
struct Cells {
    descriptors: NonNull<[PackedDescriptor]>,
    device_event: NonNull<AtomicU32>,
}

// SAFETY: all access to the cells is atomic, and the ring keeps its memory.
unsafe impl Send for Cells {}
// SAFETY: as for `Send`.
unsafe impl Sync for Cells {}

/// The driver's end of a packed ring.
pub(super) struct PackedRing {
    memory: RingMemory,
    cells: Cells,
    tables: Option<IndirectTables>,
    size: u16,
    /// Where the driver's and the device's event suppression start.
    driver_event: usize,
    device_event: usize,
    event_idx: bool,
    /// For each id the next free one.
    next: Box<[u16]>,
    pub(super) free_id: u16,
    avail: Place,
    used: Place,
    /// Descriptors added since the last publication.
    unpublished: u16,
    /// The first of them, with the flags that make it available and all others with it.
    gate: Option<(Place, u16)>,
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
        let start = Place::new(index, wrap);
        let memory = RingMemory::new(dma, device_event + 4, align, hold)?;
        let cells = Cells {
            descriptors: memory.cells(0, size),
            device_event: memory.cells::<AtomicU32>(device_event, 1).cast(),
        };
        let mut ring = Self {
            memory,
            cells,
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
        self.avail = Place::new(index, wrap);
        self.used = self.avail;
        (self.unpublished, self.gate) = (0, None);
        // Behind the start the ring looks used in this lap, before it used in the last: to neither
        // side does a descriptor seem to be there.
        for place in 0..self.size {
            let lap = Place::new(place, if place < index { wrap } else { !wrap });
            let flags = u64::from(lap.used_flags()) << 48;
            let offset = usize::from(place) * DESCRIPTOR;
            self.memory.store_descriptor(offset, NOWHERE, flags);
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
            wrap: self.used.wrap(),
        }
    }

    /// Writes a chain of one descriptor by the next free id, and shows it to the device, with nothing
    /// added before that has not been shown. Returns the [place](Self::place) behind it if the device
    /// wants to be notified.
    #[inline(always)]
    pub(super) fn submit(&mut self, segment: Segment, flags: u16) -> Option<u16> {
        let (id, place) = (self.free_id, self.avail);
        self.free_id = self.next[usize::from(id)];
        // SAFETY: the cells lie in `memory`, and all access to them is atomic.
        let descriptors = unsafe { self.cells.descriptors.as_ref() };
        // SAFETY: likewise.
        let event = unsafe { self.cells.device_event.as_ref() };
        let descriptor = &descriptors[usize::from(place.index)];
        let Segment { addr, len, .. } = segment;
        descriptor.addr.store(addr.0.to_le(), Ordering::Relaxed);
        descriptor.len.store(len.to_le(), Ordering::Relaxed);
        descriptor.id.store(id.to_le(), Ordering::Relaxed);
        let flags = (flags | place.available).to_le();
        let event = publish_then_check(
            || descriptor.flags.store(flags, Ordering::Release),
            || event.load(Ordering::Relaxed).to_ne_bytes(),
        );
        self.avail.index += 1;
        if self.avail.index == self.size {
            self.avail = place.in_next_lap(0);
        }
        let wrap = |place: Place| u16::from(place.available == F_AVAIL) << 15;
        // VIRTIO 1.2, 2.8.14.
        let is_wanted = match u16::from_le_bytes([event[2], event[3]]) & 3 {
            EVENT_F_DISABLE => false,
            EVENT_F_DESC if self.event_idx => {
                u16::from_le_bytes([event[0], event[1]]) == place.index | wrap(place)
            }
            _ => true,
        };
        is_wanted.then_some(self.avail.index | wrap(self.avail))
    }

    /// Writes a chain into the next descriptors, by a free id or by the one that it has had before.
    #[inline(always)]
    pub(super) fn add<T: Chain>(&mut self, chain: &T, plan: &Plan, known: Option<u16>) -> u16 {
        let id = known.unwrap_or(self.free_id);
        if known.is_none() {
            self.free_id = self.next[usize::from(id)];
        }
        match plan.table {
            Some(table) if T::KEEPS_TABLE => self.put(table, id, F_INDIRECT),
            _ if T::KEEPS_TABLE => self.write_odd(chain, plan, id),
            _ => self.write(chain, plan, id),
        }
        self.unpublished += plan.descriptors;
        id
    }

    /// Writes a chain that has no table of its own.
    #[inline]
    fn write<T: Chain>(&mut self, chain: &T, plan: &Plan, id: u16) {
        match &self.tables {
            Some(tables) if T::MAX_SEGMENTS > 1 && plan.is_indirect() => {
                let table = tables.write(id, chain, plan.segments);
                self.put(table, id, F_INDIRECT);
            }
            _ => describe(chain, plan.segments, |segment, flags| {
                self.put(segment, id, flags);
            }),
        }
    }

    /// The same of a chain that mostly has one.
    #[cold]
    fn write_odd<T: Chain>(&mut self, chain: &T, plan: &Plan, id: u16) {
        self.write(chain, plan, id);
    }

    /// Writes a chain of one descriptor into the next one, by the next free id.
    #[inline(always)]
    pub(super) fn add_single(&mut self, segment: Segment, flags: u16) -> u16 {
        let id = self.free_id;
        self.free_id = self.next[usize::from(id)];
        self.put(segment, id, flags);
        self.unpublished += 1;
        id
    }

    /// Writes the next descriptor. The first since the last publication stays closed to the device,
    /// and with it everything behind, because the device takes them in order: its flags stay as
    /// they are, closed to both sides since the last lap.
    #[inline(always)]
    fn put(&mut self, segment: Segment, id: u16, flags: u16) {
        let place = self.avail;
        // SAFETY: as for `submit`.
        let descriptors = unsafe { self.cells.descriptors.as_ref() };
        let descriptor = &descriptors[usize::from(place.index)];
        let Segment { addr, len, .. } = segment;
        descriptor.addr.store(addr.0.to_le(), Ordering::Relaxed);
        descriptor.len.store(len.to_le(), Ordering::Relaxed);
        descriptor.id.store(id.to_le(), Ordering::Relaxed);
        let open = flags | place.available;
        if self.gate.is_some() {
            descriptor.flags.store(open.to_le(), Ordering::Relaxed);
        } else {
            self.gate = Some((place, open));
        }
        self.avail.index += 1;
        if self.avail.index == self.size {
            self.avail = place.in_next_lap(0);
        }
    }

    /// Shows the device what was added, and says whether it wants to be notified.
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let gate = self.gate.take();
        let batch = mem::take(&mut self.unpublished);
        let open = || {
            if let Some((place, flags)) = gate {
                let cell = &self.descriptor(place).flags;
                cell.store(flags.to_le(), Ordering::Release);
            }
        };
        publish_then_check(open, || {
            // SAFETY: as for `submit`.
            let event = unsafe { self.cells.device_event.as_ref() };
            let event = event.load(Ordering::Relaxed).to_ne_bytes();
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
        let wanted = Place::new(event & 0x7fff, event >> 15 != 0);
        let lap = if wanted.available == self.avail.available {
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
        let flags = &self.descriptor(self.used).flags;
        self.used
            .is_used(u16::from_le(flags.load(Ordering::Acquire)))
    }

    #[inline]
    fn descriptor(&self, place: Place) -> &PackedDescriptor {
        // SAFETY: as for `submit`.
        let descriptors = unsafe { self.cells.descriptors.as_ref() };
        &descriptors[usize::from(place.index)]
    }

    /// What the device says of the next used chain, with `in_flight` chains in its hands.
    #[inline]
    pub(super) fn peek(&self, in_flight: u16) -> Option<Claim> {
        let descriptor = self.descriptor(self.used);
        let flags = u16::from_le(descriptor.flags.load(Ordering::Acquire));
        if !self.used.is_used(flags) {
            return None;
        }
        Some(Claim {
            id: u16::from_le(descriptor.id.load(Ordering::Relaxed)).into(),
            written: u32::from_le(descriptor.len.load(Ordering::Relaxed)),
            chains: in_flight,
        })
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
    fn new(index: u16, wrap: bool) -> Self {
        let available = if wrap { F_AVAIL } else { F_USED };
        Self { index, available }
    }

    fn wrap(self) -> bool {
        self.available == F_AVAIL
    }

    /// Whether these flags say that the device has used the descriptor in this lap.
    #[inline]
    fn is_used(self, flags: u16) -> bool {
        flags & (F_AVAIL | F_USED) == self.used_flags()
    }

    /// The flags of a descriptor that the device has used in this lap.
    #[inline]
    fn used_flags(self) -> u16 {
        if self.wrap() { F_AVAIL | F_USED } else { 0 }
    }

    /// The place `count` descriptors further on; `count` is at most the ring's size.
    #[inline]
    fn after(self, count: u16, size: u16) -> Self {
        let index = self.index + count;
        if index < size {
            Self { index, ..self }
        } else {
            self.in_next_lap(index - size)
        }
    }

    #[cold]
    fn in_next_lap(self, index: u16) -> Self {
        let available = self.available ^ (F_AVAIL | F_USED);
        Self { index, available }
    }

    /// As event suppression and notifications have it.
    fn encode(self) -> u16 {
        self.index | u16::from(self.wrap()) << 15
    }
}

const NOWHERE: Segment = Segment::described(crate::DmaAddr(0), 0);
