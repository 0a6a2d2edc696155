//! The driver side of a split ring, from VIRTIO 1.2, 2.7.13 and 2.7.14.

use std::collections::BTreeMap;

use virtq::{RingAddresses, RingFeatures};

use super::{Buffer, INDIRECT, NEXT, Offer, WRITE, World};

pub struct SplitDriver {
    pub size: u16,
    pub features: RingFeatures,
    pub addresses: RingAddresses,
    free: Vec<u16>,
    /// The descriptors of each chain, by its head.
    chains: BTreeMap<u16, Vec<u16>>,
    /// The index behind what was added, and behind what was published.
    added: u16,
    published: u16,
    last_used: u16,
}

impl SplitDriver {
    pub fn new(world: &World, size: u16, features: RingFeatures) -> Self {
        let entries = usize::from(size);
        let addresses = RingAddresses {
            descriptor: world.allocate(16 * entries, 16),
            driver: world.allocate(6 + 2 * entries, 2),
            device: world.allocate(6 + 8 * entries, 4),
        };
        let free = (0..size).rev().collect();
        let chains = BTreeMap::new();
        Self {
            size,
            features,
            addresses,
            free,
            chains,
            added: 0,
            published: 0,
            last_used: 0,
        }
    }

    /// A driver that has been through so many chains already.
    pub fn start_at(&mut self, world: &World, index: u16) {
        (self.added, self.published, self.last_used) = (index, index, index);
        world.write_u16(self.addresses.driver.0 + 2, index);
        world.write_u16(self.addresses.device.0 + 2, index);
    }

    pub fn add(&mut self, world: &World, buffers: &[Buffer], offer: Offer) -> Option<u16> {
        let taken = if offer == Offer::Indirect {
            1
        } else {
            buffers.len()
        };
        let rest = self.free.len().checked_sub(taken)?;
        let indices: Vec<u16> = self.free.split_off(rest).into_iter().rev().collect();
        let head = indices[0];
        if offer == Offer::Indirect {
            let table = world.allocate(16 * buffers.len(), 1);
            let order: Vec<u16> = (0..).take(buffers.len()).collect();
            write_chain(world, table.0, &order, buffers);
            let len = u32::try_from(16 * buffers.len()).unwrap();
            self.descriptor(world, head, Buffer::readable(table, len), INDIRECT, 0);
        } else {
            write_chain(world, self.addresses.descriptor.0, &indices, buffers);
        }
        self.chains.insert(head, indices);
        let added = self.added;
        self.entry(world, added, head);
        self.added = added.wrapping_add(1);
        Some(head)
    }

    /// Writes any descriptor of the table.
    pub fn descriptor(&self, world: &World, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let at = self.addresses.descriptor.0 + 16 * u64::from(index);
        world.write_descriptor(at, buffer, flags, next);
    }

    /// Writes any available entry.
    pub fn entry(&self, world: &World, index: u16, head: u16) {
        let slot = u64::from(index % self.size);
        world.write_u16(self.addresses.driver.0 + 4 + 2 * slot, head);
    }

    /// Offers a chain that starts at any descriptor.
    pub fn offer(&mut self, world: &World, head: u16) {
        self.entry(world, self.added, head);
        self.added = self.added.wrapping_add(1);
        self.publish(world);
    }

    /// Writes any available index.
    pub fn set_index(&self, world: &World, index: u16) {
        world.write_u16(self.addresses.driver.0 + 2, index);
    }

    pub fn publish(&mut self, world: &World) -> bool {
        let old = self.published;
        self.published = self.added;
        self.set_index(world, self.added);
        if !self.features.event_idx {
            return old != self.added && world.read_u16(self.addresses.device.0) & 1 == 0;
        }
        // The device wants to hear when this entry becomes available. One at a time, so that this
        // does not repeat the arithmetic under test.
        let event = world.read_u16(self.addresses.device.0 + 4 + 8 * u64::from(self.size));
        (0..self.added.wrapping_sub(old)).any(|step| old.wrapping_add(step) == event)
    }

    pub fn used_index(&self, world: &World) -> u16 {
        world.read_u16(self.addresses.device.0 + 2)
    }

    pub fn take(&mut self, world: &World) -> Option<(u16, u32)> {
        if self.used_index(world) == self.last_used {
            return None;
        }
        let slot = u64::from(self.last_used % self.size);
        let entry = self.addresses.device.0 + 4 + 8 * slot;
        self.last_used = self.last_used.wrapping_add(1);
        let id = u16::try_from(world.read_u32(entry)).unwrap();
        let descriptors = self
            .chains
            .remove(&id)
            .expect("the device returns what it was given");
        self.free.extend(descriptors);
        Some((id, world.read_u32(entry + 4)))
    }

    pub fn enable_interrupts(&mut self, world: &World) -> bool {
        world.write_u16(self.addresses.driver.0, 0);
        self.set_used_event(world, self.last_used);
        self.used_index(world) != self.last_used
    }

    pub fn disable_interrupts(&mut self, world: &World) {
        world.write_u16(self.addresses.driver.0, 1);
        self.set_used_event(world, self.last_used.wrapping_sub(1));
    }

    pub fn set_used_event(&self, world: &World, index: u16) {
        if self.features.event_idx {
            world.write_u16(
                self.addresses.driver.0 + 4 + 2 * u64::from(self.size),
                index,
            );
        }
    }
}

/// Writes a chain over these descriptors of a table.
fn write_chain(world: &World, table: u64, indices: &[u16], buffers: &[Buffer]) {
    for (place, (&index, &buffer)) in indices.iter().zip(buffers).enumerate() {
        let next = indices.get(place + 1);
        let write = if buffer.writable { WRITE } else { 0 };
        let flags = write | if next.is_some() { NEXT } else { 0 };
        let at = table + 16 * u64::from(index);
        world.write_descriptor(at, buffer, flags, next.copied().unwrap_or(0));
    }
}
