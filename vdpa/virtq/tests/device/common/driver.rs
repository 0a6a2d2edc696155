//! A driver of either format.

use virtq::{DmaAddr, RingAddresses, RingFeatures};

use super::{PackedDriver, SplitDriver, World};

/// A buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub addr: DmaAddr,
    pub len: u32,
    pub writable: bool,
}

impl Buffer {
    pub fn readable(addr: DmaAddr, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: false,
        }
    }

    pub fn writable(addr: DmaAddr, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: true,
        }
    }

    /// A readable buffer with these bytes in it.
    pub fn with(world: &World, bytes: &[u8]) -> Self {
        let addr = world.allocate(bytes.len().max(1), 1);
        world.write(addr, bytes);
        Self::readable(addr, u32::try_from(bytes.len()).unwrap())
    }

    /// A writable buffer.
    pub fn room(world: &World, len: u32) -> Self {
        Self::writable(world.allocate(len.max(1) as usize, 1), len)
    }
}

/// How a chain is put into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Direct,
    Indirect,
}

/// A driver by the specification: honest, plain and slow.
pub enum Driver {
    Split(SplitDriver),
    Packed(PackedDriver),
}

impl Driver {
    pub fn new(world: &World, size: u16, features: RingFeatures) -> Self {
        if features.packed {
            Self::Packed(PackedDriver::new(world, size, features))
        } else {
            Self::Split(SplitDriver::new(world, size, features))
        }
    }

    pub fn size(&self) -> u16 {
        match self {
            Self::Split(driver) => driver.size,
            Self::Packed(driver) => driver.size,
        }
    }

    pub fn features(&self) -> RingFeatures {
        match self {
            Self::Split(driver) => driver.features,
            Self::Packed(driver) => driver.features,
        }
    }

    pub fn addresses(&self) -> RingAddresses {
        match self {
            Self::Split(driver) => driver.addresses,
            Self::Packed(driver) => driver.addresses,
        }
    }

    /// Puts a chain into the ring, and returns its id; `None` if there is no room.
    pub fn add(&mut self, world: &World, buffers: &[Buffer], offer: Offer) -> Option<u16> {
        match self {
            Self::Split(driver) => driver.add(world, buffers, offer),
            Self::Packed(driver) => driver.add(world, buffers, offer),
        }
    }

    /// Makes available what was added. Whether the device wants to be notified of it.
    pub fn publish(&mut self, world: &World) -> bool {
        match self {
            Self::Split(driver) => driver.publish(world),
            Self::Packed(driver) => driver.publish(world),
        }
    }

    /// Adds and publishes one chain.
    pub fn send(&mut self, world: &World, buffers: &[Buffer]) -> u16 {
        let id = self
            .add(world, buffers, Offer::Direct)
            .expect("there is room");
        self.publish(world);
        id
    }

    /// The next used chain: its id and the length that the device reports.
    pub fn take(&mut self, world: &World) -> Option<(u16, u32)> {
        match self {
            Self::Split(driver) => driver.take(world),
            Self::Packed(driver) => driver.take(world),
        }
    }

    /// Asks for an interrupt at the next used chain. Whether one is there already.
    pub fn enable_interrupts(&mut self, world: &World) -> bool {
        match self {
            Self::Split(driver) => driver.enable_interrupts(world),
            Self::Packed(driver) => driver.enable_interrupts(world),
        }
    }

    pub fn disable_interrupts(&mut self, world: &World) {
        match self {
            Self::Split(driver) => driver.disable_interrupts(world),
            Self::Packed(driver) => driver.disable_interrupts(world),
        }
    }
}
