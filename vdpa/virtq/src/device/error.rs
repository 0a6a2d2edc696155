//! What can go wrong on the device side, and whose fault it is.

use super::memory::Fault;

/// How the driver broke the rules. The queue takes no further chain; the device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The available index claims more chains than the ring has room for, or has gone back.
    #[error("the available index jumped")]
    AvailIndex,
    /// An available entry names no descriptor of the ring.
    #[error("the head of a chain lies outside the ring")]
    BadHead,
    /// A chain is offered again while it is with the device: the same head, or the same buffer id.
    #[error("a chain was offered twice")]
    Duplicate,
    /// A descriptor's `next` lies outside its table.
    #[error("a descriptor's next lies outside its table")]
    BadNext,
    /// A chain has more descriptors than its table, so it comes back to itself.
    #[error("a chain loops")]
    Loop,
    /// A packed chain does not end before the ring's free descriptors do.
    #[error("a chain is longer than the ring has room for")]
    Overrun,
    /// A packed chain runs into a descriptor that has not been made available.
    #[error("a chain runs into a descriptor that is not available")]
    NotAvailable,
    /// A chain has more segments than the device has said it takes.
    #[error("a chain has too many segments")]
    TooLong,
    /// A chain holds more than 2^32 bytes (VIRTIO 1.2, 2.7.5).
    #[error("a chain holds more than 2^32 bytes")]
    TooManyBytes,
    /// A segment that the device reads comes after one that it writes (VIRTIO 1.2, 2.6.4.2).
    #[error("a readable segment follows a writable one")]
    ReadableAfterWritable,
    /// A segment runs over the end of the address space.
    #[error("a segment's address wraps")]
    AddressWrap,
    /// An indirect table, where indirect descriptors were not negotiated.
    #[error("indirect descriptors were not negotiated")]
    IndirectNotNegotiated,
    /// An indirect table inside an indirect table.
    #[error("an indirect table inside an indirect table")]
    IndirectNested,
    /// The descriptor of an indirect table has a successor or, in a packed ring, a predecessor.
    #[error("an indirect table is chained to another descriptor")]
    IndirectChained,
    /// The length of an indirect table is zero or no multiple of 16.
    #[error("the length of an indirect table is not a multiple of descriptors")]
    IndirectLength,
    /// An indirect table has more entries than the device has said it takes.
    #[error("an indirect table is too long")]
    IndirectTooLong,
    /// An indirect table cannot be reached.
    #[error("an indirect table cannot be reached: {0}")]
    IndirectFault(Fault),
    /// The ring itself cannot be reached.
    #[error("the ring cannot be reached: {0}")]
    RingFault(Fault),
}

/// Why no chain could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PopError {
    /// A chain is there, but as many as the queue was made for are in the device's hands: complete
    /// one.
    #[error("too many chains are in flight")]
    Busy,
    /// The queue is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Why a chain could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// The chain came from another queue, or from this one before it was made anew.
    #[error("the chain is not of this queue")]
    Foreign,
    /// The ring cannot be reached.
    #[error(transparent)]
    Broken(#[from] Broken),
}
