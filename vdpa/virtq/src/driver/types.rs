//! What goes into a queue's operations and what comes out of them. Errors are in
//! [`error`](super::error).

use crate::format::RingFeatures;

/// How a queue is made.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Entries: at most 32768, and a power of two unless the ring is packed.
    pub size: u16,
    /// What the device wants each part of the ring aligned to, in bytes, if more than the
    /// specification does: a power of two, or 1.
    pub align: usize,
    /// What was negotiated.
    pub features: RingFeatures,
}

/// Which chain of a queue: unique among those in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(super) u16);

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
    /// What [`Queue::add`](super::Queue::add) called it.
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

/// What the device says of a used chain. Nothing of it has been checked.
pub(super) struct Claim {
    /// The chain's id; with `VIRTIO_F_IN_ORDER`, that of the last of a batch.
    pub(super) id: u32,
    /// How many bytes it has written.
    pub(super) written: u32,
    /// The most chains that the claim can cover.
    pub(super) chains: u16,
}
