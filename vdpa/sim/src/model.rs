//! What makes a simulated device a network card or a disk. What they have in common is in the
//! [engine](super::engine).

use alloc::vec::Vec;

use vdpa::Features;
use vdpa::ops::VendorCounter;

use super::sim_queue::SimQueue;

/// The size of the largest configuration space.
pub(super) const CONFIG_MAX: usize = 64;

/// What a device is, for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The virtio device type.
    pub(super) device_id: u32,
    /// What its worker is called.
    pub(super) name: &'static str,
    /// The features of its type, offered unless masked.
    pub(super) features: Features,
    pub(super) queues: u16,
    /// Groups of queues, each of which can have an address space of its own.
    pub(super) groups: u16,
    /// The bytes of its configuration space.
    pub(super) config_size: u32,
}

/// How much a queue must be ready to take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChainLimits {
    /// The most segments in a chain.
    pub(super) segments: u16,
    /// The most chains that are with the device at once.
    pub(super) in_flight: u16,
}

/// How a turn of the worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing can be done before the driver, or somebody else, rings.
    Idle,
    /// There is more to do; others come first.
    More,
}

/// A type of device.
pub(super) trait Model: Send + 'static {
    /// What the device is.
    fn shape(&self) -> Shape;

    /// Whether the device can work with these features of its type together.
    fn accepts(&self, features: Features) -> bool;

    /// The group of a queue.
    fn group(&self, queue: u16, features: Features) -> u16;

    /// What a queue of this size must take.
    fn limits(&self, queue: u16, size: u16, features: Features) -> ChainLimits;

    /// Fills in the configuration space.
    fn read_config(&self, config: &mut [u8; CONFIG_MAX]);

    /// Takes a byte that the driver writes to the configuration space.
    fn write_config(&mut self, offset: u32, byte: u8, features: Features);

    /// The driver is ready: from here on the queues are served.
    fn start(&mut self, features: Features);

    /// Everything that the driver has told the device is forgotten. What was counted stays.
    fn reset(&mut self);

    /// Serves the queues until nothing is there or the budget is spent.
    fn serve(&mut self, ports: &mut [Option<SimQueue>], budget: &mut Budget) -> Turn;

    /// What was counted for a queue.
    fn statistics(&self, queue: u16, features: Features) -> Vec<VendorCounter>;
}

/// Whether the configuration space is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Change {
    Nothing,
    Configuration,
}

/// How much may be done in a turn of the worker before others come: a bounded time, whatever the
/// driver offers.
#[derive(Debug)]
pub(super) struct Budget(u64);

impl Budget {
    /// Chains in a turn, if they are short.
    const CHAINS: u64 = 64;
    /// Bytes that cost as much as a chain.
    const CHAIN_BYTES: u64 = 16 * 1024;

    pub(super) fn new() -> Self {
        Self(Self::CHAINS)
    }

    /// Whether the turn is over.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// Pays for a chain, or a frame, of so many bytes.
    #[inline]
    pub(super) fn pay(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(1 + bytes / Self::CHAIN_BYTES);
    }

    /// Pays for bytes that are no part of a chain.
    #[inline]
    pub(super) fn pay_bytes(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(bytes / Self::CHAIN_BYTES);
    }
}
