//! What can go wrong with a queue: at its making, with a chain, and through its device.

use core::fmt;

use crate::DmaError;

/// Why a queue could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The size is zero, above 32768, or of a split queue and not a power of two.
    #[error("a queue's size must be a power of two up to 32768")]
    BadSize,
    /// The alignment is not a power of two.
    #[error("a queue's alignment must be a power of two")]
    BadAlignment,
    /// The state is of another ring format, or names a place outside the ring.
    #[error("the state is not one of this queue's")]
    BadState,
    /// No memory for the ring.
    #[error(transparent)]
    Memory(#[from] DmaError),
}

/// The device may still touch the queue's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device may still touch the queue's memory")]
pub struct StillHeld;

/// Why a queue could not be rewound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewindError {
    /// A split ring in order starts with the first descriptor (VIRTIO 1.2, 2.7.5.2), and those in
    /// flight lie elsewhere.
    #[error("a split ring in order cannot start again with chains in it")]
    InOrder,
    /// The queue is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// A chain that could not be added, and why.
pub struct AddError<T> {
    /// The chain, untouched.
    pub chain: T,
    /// Why.
    pub reason: AddReason,
}

/// Why a chain could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddReason {
    /// Too few free descriptors; try again after a [`Queue::take`](crate::Queue::take).
    #[error("the queue is full")]
    Full,
    /// The chain has no segment, or one of length zero.
    #[error("the chain has no segment, or an empty one")]
    Empty,
    /// More segments than the queue has entries or the chain's type has promised, or more than 4
    /// GiB.
    #[error("the chain is too long")]
    TooLong,
    /// A buffer has its address from the allocator of another device.
    #[error("a buffer is another device's")]
    Foreign,
    /// The queue is broken.
    #[error(transparent)]
    Broken(Broken),
}

impl<T> fmt::Debug for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// How the device broke the rules. The queue takes nothing more; the device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It claims to have used more chains than it was given.
    #[error("the device used more chains than it was given")]
    UsedIndex,
    /// It returned an id that names no descriptor.
    #[error("the device returned an id outside the ring")]
    BadId,
    /// It returned a chain that it does not have: never given, or returned before.
    #[error("the device returned a chain that it does not have")]
    NotInFlight,
    /// It claims to have used a batch in order that is longer than what it has advanced by.
    #[error("the device skipped more chains than it has advanced by")]
    BadBatch,
    /// It claims to have written more than it was lent.
    #[error("the device wrote more than the chain holds")]
    BadLength,
}
