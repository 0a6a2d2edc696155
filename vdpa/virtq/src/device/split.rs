//! A split ring, as the device reads and writes it (VIRTIO 1.2, 2.7).

use core::mem;
use core::sync::atomic::{Ordering, fence};

use super::area::{Area, Host};
use super::chain::{Chain, Filling};
use super::completion::Completion;
use super::config::{DeviceConfig, NewError};
use super::descriptor::{Descriptor, Table};
use super::dirty::DirtyLog;
use super::error::Broken;
use super::memory::{Access, Memory};
use super::pool::{Pool, Unfilled};
use crate::RingState;
use crate::format::{AVAIL_F_NO_INTERRUPT, F_INDIRECT, F_NEXT, USED_F_NO_NOTIFY, crossed};

/// Where the flags and the index of the available and of the used ring lie, and where entries
/// start.
const FLAGS: u32 = 0;
const INDEX: u32 = 2;
const ENTRIES: u32 = 4;

/// The device's end of a split ring.
pub(super) struct SplitRing {
    descriptors: Area,
    avail: Area,
    used: Area,
    size: u16,
    event_idx: bool,
    indirect: bool,
    chain_max: u16,
    /// The available index as last read, and that of the next entry to take.
    avail_index: u16,
    next_avail: u16,
    /// The used index with everything that was completed, and as the driver knows it.
    used_index: u16,
    published: u16,
    /// Completions that the driver knows of and has not been asked about.
    unsignalled: u32,
}

impl SplitRing {
    pub(super) fn new(config: &DeviceConfig, index: u16) -> Result<Self, NewError> {
        let entries = u32::from(config.size);
        let addresses = &config.addresses;
        Ok(Self {
            descriptors: Area::new(addresses.descriptor, 16 * entries, 16, Access::Read)?,
            avail: Area::new(addresses.driver, 6 + 2 * entries, 2, Access::Read)?,
            used: Area::new(addresses.device, 6 + 8 * entries, 4, Access::Write)?,
            size: config.size,
            event_idx: config.features.event_idx,
            indirect: config.features.indirect,
            chain_max: config.chain_max,
            avail_index: index,
            next_avail: index,
            used_index: index,
            published: index,
            unsignalled: 0,
        })
    }

    pub(super) fn forget(&mut self) {
        for area in [&mut self.descriptors, &mut self.avail, &mut self.used] {
            area.forget();
        }
    }

    pub(super) fn state(&self) -> RingState {
        RingState::Split {
            index: self.next_avail,
        }
    }

    pub(super) fn has_unpublished(&self) -> bool {
        self.used_index != self.published
    }

    #[inline]
    pub(super) fn pop<M: Memory>(
        &mut self,
        memory: &M,
        pool: &mut Pool,
    ) -> Result<Option<Chain>, Unfilled> {
        if !self.is_pending(memory)? {
            return Ok(None);
        }
        let mut chain = pool.take().ok_or(Unfilled::NoRoom)?;
        match self.fill(memory, &mut chain) {
            Ok(()) => Ok(Some(chain)),
            Err(broken) => Err(Unfilled::Broken(broken, Some(chain))),
        }
    }

    /// Takes the next chain, which is there.
    #[inline(always)]
    fn fill<M: Memory>(&mut self, memory: &M, chain: &mut Chain) -> Result<(), Broken> {
        let entry = ENTRIES + 2 * u32::from(self.slot(self.next_avail));
        let head = self.avail.load16(memory, entry, Ordering::Relaxed)?;
        if head >= self.size {
            return Err(Broken::BadHead);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        let mut chain = chain.fill();
        chain.identify(head, 1);
        self.walk(memory, head, chain)
    }

    pub(super) fn put_back(&mut self) {
        self.next_avail = self.next_avail.wrapping_sub(1);
    }

    #[inline]
    pub(super) fn is_pending<M: Memory>(&mut self, memory: &M) -> Result<bool, Broken> {
        if self.avail_index != self.next_avail {
            return Ok(true);
        }
        // What the driver wrote before the index is visible afterwards.
        let index = self.avail.load16(memory, INDEX, Ordering::Acquire)?;
        let waiting = index.wrapping_sub(self.next_avail);
        // A chain takes a descriptor at least, until the driver knows that it was used.
        let in_flight = self.next_avail.wrapping_sub(self.published);
        if u32::from(waiting) + u32::from(in_flight) > u32::from(self.size) {
            return Err(Broken::AvailIndex);
        }
        self.avail_index = index;
        Ok(waiting != 0)
    }

    #[inline]
    fn walk<M: Memory>(
        &mut self,
        memory: &M,
        head: u16,
        mut chain: Filling<'_>,
    ) -> Result<(), Broken> {
        let mut index = head;
        for _ in 0..self.size {
            let offset = 16 * u32::from(index);
            let (addr, rest) = self.descriptors.load_descriptor(memory, offset)?;
            let descriptor = Descriptor::split(addr, rest);
            if descriptor.flags & F_INDIRECT != 0 {
                return self.walk_table(memory, descriptor, chain);
            }
            chain.add(descriptor)?;
            if descriptor.flags & F_NEXT == 0 {
                return chain.end();
            }
            index = descriptor.next_or_id;
            if index >= self.size {
                return Err(Broken::BadNext);
            }
        }
        Err(Broken::Loop)
    }

    /// Goes through the table that ends a chain (VIRTIO 1.2, 2.7.5.3).
    #[inline]
    fn walk_table<M: Memory>(
        &self,
        memory: &M,
        descriptor: Descriptor,
        mut chain: Filling<'_>,
    ) -> Result<(), Broken> {
        if !self.indirect {
            return Err(Broken::IndirectNotNegotiated);
        }
        if descriptor.flags & F_NEXT != 0 {
            return Err(Broken::IndirectChained);
        }
        let mut table = Table::new(memory, descriptor, self.chain_max)?;
        let mut index = 0;
        for _ in 0..table.entries() {
            let (addr, rest) = table.entry(index)?;
            let descriptor = Descriptor::split(addr, rest);
            if descriptor.flags & F_INDIRECT != 0 {
                return Err(Broken::IndirectNested);
            }
            chain.add(descriptor)?;
            if descriptor.flags & F_NEXT == 0 {
                return chain.end();
            }
            index = descriptor.next_or_id;
            if index >= table.entries() {
                return Err(Broken::BadNext);
            }
        }
        Err(Broken::Loop)
    }

    #[inline]
    pub(super) fn complete<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        completion: Completion,
    ) -> Result<(), Broken> {
        let entry = ENTRIES + 8 * u32::from(self.slot(self.used_index));
        let words = [u32::from(completion.id), completion.written];
        self.used.store32_pair(host, entry, words)?;
        self.used_index = self.used_index.wrapping_add(1);
        Ok(())
    }

    #[inline]
    pub(super) fn publish<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        let batch = self.used_index.wrapping_sub(self.published);
        if batch != 0 {
            // Everything written for these chains is visible before the index is.
            self.used
                .store16(host, INDEX, self.used_index, Ordering::Release)?;
            self.published = self.used_index;
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
        // VIRTIO 1.2, 2.7.7.2: the index must be visible before the driver's wish is read, or both
        // sides could miss each other.
        fence(Ordering::SeqCst);
        if !self.event_idx {
            let flags = self.avail.load16(memory, FLAGS, Ordering::Relaxed)?;
            return Ok(Some(flags & AVAIL_F_NO_INTERRUPT == 0));
        }
        let used_event = ENTRIES + 2 * u32::from(self.size);
        let event = self.avail.load16(memory, used_event, Ordering::Relaxed)?;
        // A batch that goes once around all indices passes each.
        let wanted = u16::try_from(batch).map_or(true, |batch| {
            crossed(event, self.published.wrapping_sub(batch), self.published)
        });
        Ok(Some(wanted))
    }

    pub(super) fn enable_notifications<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        if self.event_idx {
            self.store_avail_event(host, self.next_avail)?;
        } else {
            self.used.store16(host, FLAGS, 0, Ordering::Relaxed)?;
        }
        // VIRTIO 1.2, 2.7.10: the wish must be visible before the available index is read again.
        fence(Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn disable_notifications<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        if self.event_idx {
            // The index furthest away, also from a driver that has yet to judge what was taken
            // already.
            self.store_avail_event(host, self.next_avail.wrapping_add(0x8000))
        } else {
            self.used
                .store16(host, FLAGS, USED_F_NO_NOTIFY, Ordering::Relaxed)
        }
    }

    fn store_avail_event<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        index: u16,
    ) -> Result<(), Broken> {
        let avail_event = ENTRIES + 8 * u32::from(self.size);
        self.used
            .store16(host, avail_event, index, Ordering::Relaxed)
    }

    #[inline]
    fn slot(&self, index: u16) -> u16 {
        index & (self.size - 1)
    }
}
