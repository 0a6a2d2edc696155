//! The driver side of a packed ring, from VIRTIO 1.2, 2.8.21 and 2.8.22.

use std::collections::{BTreeMap, VecDeque};

use virtq::{RingAddresses, RingFeatures};

use super::{Buffer, INDIRECT, NEXT, Offer, WRITE, World};

pub const AVAIL: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;

/// Ids start here: a driver may choose them as it likes.
const FIRST_ID: u16 = 0xff00;

pub struct PackedDriver {
    pub size: u16,
    pub features: RingFeatures,
    pub addresses: RingAddresses,
    /// How many descriptors each chain takes.
    chains: BTreeMap<u16, u16>,
    /// The chains with the device, and how much it may write to each.
    order: VecDeque<(u16, u32)>,
    /// In order, the last chain of a batch that the device has used, and what it wrote to that one.
    batch: Option<(u16, u32)>,
    free: u16,
    next_avail: (u16, bool),
    next_used: (u16, bool),
    /// The flags that are still to be written, by descriptor, in the order of the chains.
    unpublished: Vec<(u16, u16)>,
}

impl PackedDriver {
    pub fn new(world: &World, size: u16, features: RingFeatures) -> Self {
        let addresses = RingAddresses {
            descriptor: world.allocate(16 * usize::from(size), 16),
            driver: world.allocate(4, 4),
            device: world.allocate(4, 4),
        };
        Self {
            size,
            features,
            addresses,
            chains: BTreeMap::new(),
            order: VecDeque::new(),
            batch: None,
            free: size,
            next_avail: (0, true),
            next_used: (0, true),
            unpublished: Vec::new(),
        }
    }

    pub fn add(&mut self, world: &World, buffers: &[Buffer], offer: Offer) -> Option<u16> {
        let taken = match offer {
            Offer::Indirect => 1,
            Offer::Direct => u16::try_from(buffers.len()).unwrap(),
        };
        self.free = self.free.checked_sub(taken)?;
        let id = (FIRST_ID..)
            .find(|id| !self.chains.contains_key(id))
            .unwrap();
        self.chains.insert(id, taken);
        let writable = buffers.iter().filter(|buffer| buffer.writable);
        let room = writable.map(|buffer| buffer.len).sum();
        self.order.push_back((id, room));
        if offer == Offer::Indirect {
            let table = world.allocate(16 * buffers.len(), 1);
            for (index, &buffer) in (0..).zip(buffers) {
                let write = if buffer.writable { WRITE } else { 0 };
                world.write_descriptor(table.0 + 16 * index, buffer, 0, write);
            }
            let len = u32::try_from(16 * buffers.len()).unwrap();
            self.put(world, Buffer::readable(table, len), id, INDIRECT);
        } else {
            for (left, &buffer) in (0..buffers.len()).rev().zip(buffers) {
                let write = if buffer.writable { WRITE } else { 0 };
                let next = if left > 0 { NEXT } else { 0 };
                // The id of a chain counts in the last descriptor alone.
                let id = if left > 0 { !id } else { id };
                self.put(world, buffer, id, write | next);
            }
        }
        Some(id)
    }

    /// Writes the next descriptor, whose flags wait for the publication.
    pub fn put(&mut self, world: &World, buffer: Buffer, id: u16, flags: u16) {
        let (index, wrap) = self.next_avail;
        // As if not available: the flags of the lap before.
        let stale = if wrap { 0 } else { AVAIL | USED };
        world.write_descriptor(self.at(index), buffer, id, stale);
        self.unpublished
            .push((index, flags | if wrap { AVAIL } else { USED }));
        self.next_avail = advance(self.next_avail, 1, self.size);
    }

    /// Writes any descriptor, in this lap or in another.
    pub fn descriptor(&self, world: &World, index: u16, buffer: Buffer, id: u16, flags: u16) {
        world.write_descriptor(self.at(index), buffer, id, flags);
    }

    pub fn publish(&mut self, world: &World) -> bool {
        let batch: Vec<_> = self.unpublished.drain(..).collect();
        // The first descriptor last: it opens the way to the others.
        for &(index, flags) in batch.iter().rev() {
            world.write_u16(self.at(index) + 14, flags);
        }
        let event = world.read_u16(self.addresses.device.0);
        match world.read_u16(self.addresses.device.0 + 2) {
            0 => !batch.is_empty(),
            1 => false,
            2 => batch.iter().any(|&(index, flags)| {
                let wrap = flags & AVAIL != 0;
                event == index | u16::from(wrap) << 15
            }),
            other => panic!("event flags {other} are reserved"),
        }
    }

    pub fn has_used(&self, world: &World) -> bool {
        if self.batch.is_some() {
            return true;
        }
        let (index, wrap) = self.next_used;
        let flags = world.read_u16(self.at(index) + 14);
        (flags & AVAIL != 0) == wrap && (flags & USED != 0) == wrap
    }

    pub fn take(&mut self, world: &World) -> Option<(u16, u32)> {
        if !self.has_used(world) {
            return None;
        }
        if !self.features.in_order {
            let (id, written) = self.read_used(world);
            let taken = self.chains.remove(&id).unwrap_or_else(|| unknown(id));
            self.free += taken;
            self.next_used = advance(self.next_used, taken, self.size);
            return Some((id, written));
        }
        // VIRTIO 1.2, 2.8.9: a descriptor may stand for a batch, of which all but the last chain
        // are used completely.
        let (last, written) = self.batch.take().unwrap_or_else(|| {
            let (last, written) = self.read_used(world);
            let ids = self.order.iter().map(|(id, _)| *id);
            let end = ids.clone().position(|id| id == last);
            let end = end.unwrap_or_else(|| unknown(last).into());
            let taken = ids.take(end + 1).map(|id| self.chains[&id]).sum();
            self.next_used = advance(self.next_used, taken, self.size);
            (last, written)
        });
        let (id, room) = self.order.pop_front().expect("the batch is not over");
        self.free += self.chains.remove(&id).expect("it was added");
        if id == last {
            return Some((id, written));
        }
        self.batch = Some((last, written));
        Some((id, room))
    }

    /// The ids in so many used descriptors from the next one on, where a batch of three follows
    /// each.
    pub fn used_ids(&self, world: &World, count: u16) -> Vec<u16> {
        let place = |nth| advance(self.next_used, 3 * nth, self.size).0;
        (0..count)
            .map(|nth| world.read_u16(self.at(place(nth)) + 12))
            .collect()
    }

    /// What the next used descriptor says.
    fn read_used(&self, world: &World) -> (u16, u32) {
        let at = self.at(self.next_used.0);
        let id = world.read_u16(at + 12);
        let wrote = world.read_u16(at + 14) & WRITE != 0;
        (id, if wrote { world.read_u32(at + 8) } else { 0 })
    }

    pub fn enable_interrupts(&mut self, world: &World) -> bool {
        if self.features.event_idx {
            let (index, wrap) = self.next_used;
            self.set_event(world, index, wrap, 2);
        } else {
            self.set_event(world, 0, false, 0);
        }
        self.has_used(world)
    }

    pub fn disable_interrupts(&mut self, world: &World) {
        self.set_event(world, 0, false, 1);
    }

    /// Writes any event suppression of the driver.
    pub fn set_event(&self, world: &World, index: u16, wrap: bool, flags: u16) {
        world.write_u16(self.addresses.driver.0, index | u16::from(wrap) << 15);
        world.write_u16(self.addresses.driver.0 + 2, flags);
    }

    fn at(&self, index: u16) -> u64 {
        self.addresses.descriptor.0 + 16 * u64::from(index)
    }
}

fn unknown(id: u16) -> u16 {
    panic!("the device returns {id}, which it was not given")
}

/// Goes on by so many descriptors, one at a time.
fn advance((mut index, mut wrap): (u16, bool), count: u16, size: u16) -> (u16, bool) {
    for _ in 0..count {
        index += 1;
        if index == size {
            (index, wrap) = (0, !wrap);
        }
    }
    (index, wrap)
}
