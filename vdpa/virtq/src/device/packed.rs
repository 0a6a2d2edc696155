//! A packed ring, as the device reads and writes it (VIRTIO 1.2, 2.8).

use core::mem;
use core::sync::atomic::{Ordering, fence};

use super::area::{Area, Host};
use super::chain::Chain;
use super::completion::Completion;
use super::config::{DeviceConfig, NewError};
use super::descriptor::{Descriptor, Table, entries_in_place};
use super::dirty::DirtyLog;
use super::error::Broken;
use super::memory::{Access, Memory};
use super::pool::{Pool, Unfilled};
use crate::RingState;
use crate::format::{
    EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, F_AVAIL, F_INDIRECT, F_NEXT, F_USED, F_WRITE,
};

/// Where the fields of a descriptor lie.
const LEN: u32 = 8;
const FLAGS: u32 = 14;

/// A place in the ring, with the wrap counter there.
#[derive(Clone, Copy)]
struct Place {
    index: u16,
    /// The wrap counter as the flags of a descriptor have it that is available there.
    available: u16,
}

/// Chains that one used descriptor gives back.
#[derive(Clone, Copy, Default)]
struct Batch {
    /// How many descriptors they take; 0 if there are none.
    descriptors: u16,
    /// The id of the last of them, and how much was written into that one.
    id: u16,
    written: u32,
}

/// The device's end of a packed ring.
pub(super) struct PackedRing {
    /// The descriptors, once for reading and once for writing.
    offered: Area,
    returned: Area,
    driver_event: Area,
    device_event: Area,
    size: u16,
    event_idx: bool,
    indirect: bool,
    in_order: bool,
    chain_max: u16,
    /// The next descriptor to take, and the next to give back.
    avail: Place,
    used: Place,
    /// Descriptors taken that the driver has not been given back.
    in_flight: u16,
    /// In order, chains that were used completely: one descriptor gives them back, with the next
    /// one that was not.
    batch: Batch,
    /// Descriptors given back since the last publication.
    unpublished: u16,
    /// The first of them: where its flags lie, and the flags that show it and all behind it.
    gate: Option<(u32, u16)>,
    /// Descriptors that the driver knows of and has not been asked about.
    unsignalled: u32,
}

impl PackedRing {
    pub(super) fn new(config: &DeviceConfig, index: u16, wrap: bool) -> Result<Self, NewError> {
        let ring = config.addresses.descriptor;
        let len = 16 * u32::from(config.size);
        let start = Place::new(index, wrap);
        Ok(Self {
            offered: Area::new(ring, len, 16, Access::Read)?,
            returned: Area::new(ring, len, 16, Access::Write)?,
            driver_event: Area::new(config.addresses.driver, 4, 4, Access::Read)?,
            device_event: Area::new(config.addresses.device, 4, 4, Access::Write)?,
            size: config.size,
            event_idx: config.features.event_idx,
            indirect: config.features.indirect,
            in_order: config.features.in_order,
            chain_max: config.chain_max,
            avail: start,
            used: start,
            in_flight: 0,
            batch: Batch::default(),
            unpublished: 0,
            gate: None,
            unsignalled: 0,
        })
    }

    pub(super) fn forget(&mut self) {
        self.offered.forget();
        self.returned.forget();
        self.driver_event.forget();
        self.device_event.forget();
    }

    pub(super) fn state(&self) -> RingState {
        RingState::Packed {
            index: self.avail.index,
            wrap: self.avail.wrap(),
        }
    }

    pub(super) fn has_unpublished(&self) -> bool {
        self.gate.is_some() || self.batch.descriptors > 0
    }

    #[inline]
    pub(super) fn pop<M: Memory>(
        &mut self,
        memory: &M,
        pool: &mut Pool,
    ) -> Result<Option<Chain>, Unfilled> {
        let place = self.avail;
        let offset = 16 * u32::from(place.index);
        let is_available = |flags| place.is_available(flags);
        let Some((flags, addr, rest)) = self.offered.load_offered(memory, offset, is_available)?
        else {
            return Ok(None);
        };
        // The flags were read before.
        let descriptor = Descriptor {
            flags,
            ..Descriptor::packed(addr, rest)
        };
        let mut chain = pool.take().ok_or(Unfilled::NoRoom)?;
        match self.fill(memory, descriptor, &mut chain) {
            Ok(()) => Ok(Some(chain)),
            Err(broken) => Err(Unfilled::Broken(broken, Some(chain))),
        }
    }

    /// Takes the chain that begins with `first`.
    #[inline(always)]
    fn fill<M: Memory>(
        &mut self,
        memory: &M,
        first: Descriptor,
        chain: &mut Chain,
    ) -> Result<(), Broken> {
        if first.flags & F_NEXT != 0 || self.in_flight >= self.size {
            return self.pop_list(memory, first, chain);
        }
        self.avail = self.avail.after(1, self.size);
        self.in_flight += 1;
        if first.flags & F_INDIRECT == 0 {
            return chain.fill_single(first.next_or_id, first);
        }
        if self.indirect
            && let Some(entries) = entries_in_place(memory, first, self.chain_max)
            && chain.fill_all(first.next_or_id, entries)
        {
            return Ok(());
        }
        self.walk_table(memory, first, chain)
    }

    /// Takes a chain of several descriptors, of which the first has been read.
    #[inline(never)]
    fn pop_list<M: Memory>(
        &mut self,
        memory: &M,
        first: Descriptor,
        chain: &mut Chain,
    ) -> Result<(), Broken> {
        let mut chain = chain.fill();
        let (mut place, mut descriptor) = (self.avail, first);
        let free = self.size - self.in_flight;
        let mut count = 0;
        loop {
            if count == free {
                return Err(Broken::Overrun);
            }
            count += 1;
            place = place.after(1, self.size);
            let last = descriptor.flags & F_NEXT == 0;
            if last {
                // The id of a chain is in its last descriptor (VIRTIO 1.2, 2.8.6).
                chain.identify(descriptor.next_or_id, count);
                self.avail = place;
                self.in_flight += count;
            }
            if descriptor.flags & F_INDIRECT != 0 {
                // VIRTIO 1.2, 2.8.19: a table is not part of a list.
                return Err(if self.indirect {
                    Broken::IndirectChained
                } else {
                    Broken::IndirectNotNegotiated
                });
            }
            chain.add(descriptor)?;
            if last {
                return chain.end();
            }
            if count == free {
                return Err(Broken::Overrun);
            }
            let offset = 16 * u32::from(place.index);
            let (addr, rest) = self.offered.load_descriptor(memory, offset)?;
            descriptor = Descriptor::packed(addr, rest);
            if !place.is_available(descriptor.flags) {
                return Err(Broken::NotAvailable);
            }
        }
    }

    pub(super) fn put_back(&mut self, descriptors: u16) {
        // What was used since lies before them: the driver's descriptors are still there.
        self.avail = self.avail.before(descriptors, self.size);
        self.in_flight -= descriptors;
    }

    #[inline]
    pub(super) fn is_pending<M: Memory>(&mut self, memory: &M) -> Result<bool, Broken> {
        let offset = 16 * u32::from(self.avail.index) + FLAGS;
        // What the driver wrote before the flags is visible afterwards.
        let flags = self.offered.load16(memory, offset, Ordering::Acquire)?;
        Ok(self.avail.is_available(flags))
    }

    /// Goes through a table from its first entry to its last. Of its flags only `WRITE` means
    /// something; the others are ignored, and so is the id (VIRTIO 1.2, 2.8.7).
    #[inline(never)]
    fn walk_table<M: Memory>(
        &self,
        memory: &M,
        descriptor: Descriptor,
        chain: &mut Chain,
    ) -> Result<(), Broken> {
        let mut chain = chain.fill();
        chain.identify(descriptor.next_or_id, 1);
        if !self.indirect {
            return Err(Broken::IndirectNotNegotiated);
        }
        let mut table = Table::new(memory, descriptor, self.chain_max)?;
        for index in 0..table.entries() {
            let (addr, rest) = table.entry(index)?;
            chain.add(Descriptor::packed(addr, rest))?;
        }
        chain.end()
    }

    /// Gives a chain back with the next publication. In order, chains that are used completely join
    /// the next one, so that one descriptor gives back all of them (VIRTIO 1.2, 2.8.9).
    #[inline(always)]
    pub(super) fn complete<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        completion: Completion,
    ) -> Result<(), Broken> {
        let Completion {
            id,
            mut descriptors,
            written,
            is_full,
        } = completion;
        descriptors += mem::take(&mut self.batch.descriptors);
        if self.in_order && is_full {
            self.batch = Batch {
                descriptors,
                id,
                written,
            };
            return Ok(());
        }
        self.write_used(host, id, descriptors, written)
    }

    /// Writes the next used descriptor. The first since the last publication stays closed.
    #[inline(always)]
    fn write_used<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        id: u16,
        descriptors: u16,
        written: u32,
    ) -> Result<(), Broken> {
        let offset = 16 * u32::from(self.used.index);
        self.returned
            .store32_then16(host, offset + LEN, written, id)?;
        // VIRTIO 1.2, 2.8.4: the length counts only with this flag.
        let wrote = if written > 0 { F_WRITE } else { 0 };
        let flags = self.used.used_flags() | wrote;
        if self.gate.is_none() {
            self.gate = Some((offset + FLAGS, flags));
        } else {
            self.returned
                .store16(host, offset + FLAGS, flags, Ordering::Release)?;
        }
        self.used = self.used.after(descriptors, self.size);
        self.unpublished += descriptors;
        Ok(())
    }

    #[inline]
    pub(super) fn publish<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        let descriptors = mem::take(&mut self.batch.descriptors);
        if descriptors > 0 {
            let Batch { id, written, .. } = self.batch;
            self.write_used(host, id, descriptors, written)?;
        }
        if let Some((offset, flags)) = self.gate {
            // The driver goes through the ring in order, so this shows it the whole batch.
            self.returned
                .store16(host, offset, flags, Ordering::Release)?;
            self.gate = None;
            let batch = mem::take(&mut self.unpublished);
            self.in_flight -= batch;
            self.unsignalled = self.unsignalled.saturating_add(u32::from(batch));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn wants_interrupt<M: Memory>(
        &mut self,
        memory: &M,
    ) -> Result<Option<bool>, Broken> {
        let batch = match mem::take(&mut self.unsignalled) {
            0 => return Ok(None),
            batch => batch,
        };
        // VIRTIO 1.2, 2.8.14: the descriptors must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let event = self.driver_event.load32(memory, 0)?.to_le_bytes();
        let place = Place::decode(u16::from_le_bytes([event[0], event[1]]));
        let wanted = match u16::from_le_bytes([event[2], event[3]]) & 3 {
            EVENT_F_DISABLE => false,
            EVENT_F_DESC if self.event_idx => self.passed(place, batch),
            _ => true,
        };
        Ok(Some(wanted))
    }

    /// Whether the last `batch` descriptors include the one at `event`.
    fn passed(&self, event: Place, batch: u32) -> bool {
        // With the other wrap counter it lies in the lap before this one. (In the next lap, it lies
        // ahead by what looks like more than a lap behind.)
        let lap = if event.available == self.used.available {
            0
        } else {
            i64::from(self.size)
        };
        let behind = i64::from(self.used.index) + lap - i64::from(event.index);
        (1..=i64::from(batch)).contains(&behind)
    }

    pub(super) fn enable_notifications<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        if self.event_idx {
            self.store_event(host, self.avail.encode(), EVENT_F_DESC)?;
        } else {
            self.store_event(host, 0, EVENT_F_ENABLE)?;
        }
        // The wish must be visible before the ring is read again.
        fence(Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn disable_notifications<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        self.store_event(host, 0, EVENT_F_DISABLE)
    }

    fn store_event<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        place: u16,
        flags: u16,
    ) -> Result<(), Broken> {
        self.device_event
            .store32(host, 0, u32::from(place) | u32::from(flags) << 16)
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

    /// Whether these flags say that the driver offers the descriptor in this lap.
    #[inline]
    fn is_available(self, flags: u16) -> bool {
        flags & (F_AVAIL | F_USED) == self.available
    }

    /// The flags that say that the device has used the descriptor in this lap.
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
            self.in_other_lap(index - size)
        }
    }

    /// The place `count` descriptors before; `count` is at most the ring's size.
    fn before(self, count: u16, size: u16) -> Self {
        match self.index.checked_sub(count) {
            Some(index) => Self { index, ..self },
            None => self.in_other_lap(self.index + size - count),
        }
    }

    #[cold]
    fn in_other_lap(self, index: u16) -> Self {
        let available = self.available ^ (F_AVAIL | F_USED);
        Self { index, available }
    }

    /// As event suppression has it (VIRTIO 1.2, 2.8.14).
    fn encode(self) -> u16 {
        self.index | u16::from(self.wrap()) << 15
    }

    fn decode(event: u16) -> Self {
        Self::new(event & 0x7fff, event >> 15 != 0)
    }
}
