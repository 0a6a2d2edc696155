//! Why a disk is not driven, and why it did not do what was asked.

use virtio::blk::S;

use super::slot::STATUS_UNTOUCHED;

/// Why the driver cannot drive a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// It is of another type.
    #[error("not a block device")]
    Type,
    /// Its block size is impossible.
    #[error("the disk's block size is not a power of two from 512 to 65536")]
    BlockSize,
    /// Its queue has no room for a request's header, status and data.
    #[error("the disk's queue is too short for a request")]
    ShortQueue,
    /// Its segments are too few or too short for a block.
    #[error("the disk takes less than a block in one request")]
    ShortRequest,
}

/// A request to a disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlkError {
    /// The disk cannot be written to.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The range does not lie on the disk.
    #[error("the range does not lie on the disk")]
    OutOfRange,
    /// The position or the length is not a multiple of the block size.
    #[error("position or length is not a multiple of the block size")]
    Unaligned,
    /// More bytes than the disk takes in one request; see
    /// [`Disk::max_transfer`](super::Disk::max_transfer).
    #[error("more than the disk takes in one request")]
    TooLarge,
    /// The medium failed.
    #[error("the disk reports an error of the medium")]
    Io,
    /// The disk does not know the request.
    #[error("the disk does not support the request")]
    Unsupported,
    /// No memory that the disk can reach is left.
    #[error("out of memory for transfers")]
    OutOfMemory,
    /// The disk broke the protocol and is not used any more.
    #[error("the disk broke the protocol")]
    Broken,
    /// The disk has been removed, or its driver has let it go.
    #[error("the disk is gone")]
    Gone,
}

/// The disk did not answer as the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("the disk left the status of a request untouched")]
    NoStatus,
    #[error("the disk reports a status that does not exist")]
    UnknownStatus,
    #[error("the disk reports success and another length than was asked for")]
    BadLength,
}

/// What a status says that is not that of a complete success.
#[cold]
pub(super) fn failure(status: u8) -> Result<S, Violation> {
    match status {
        STATUS_UNTOUCHED => Err(Violation::NoStatus),
        // VIRTIO 1.2, 5.2.6: every other value belongs to features that are not negotiated.
        byte => match S::try_from(byte) {
            Ok(S::Ok) => Err(Violation::BadLength),
            Ok(status @ (S::Ioerr | S::Unsupp)) => Ok(status),
            _ => Err(Violation::UnknownStatus),
        },
    }
}
