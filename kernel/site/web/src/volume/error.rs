//! Why a volume, or a disk on the way to one, could not answer.

use hadris_fs::ErrorKind;
use hadris_io::Error;

/// Why the volume could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The path leads nowhere.
    #[error("there is no such file")]
    NotFound,
    /// Neither the disk nor one of its partitions has a FAT file system.
    #[error("the disk holds no FAT file system")]
    NoFileSystem,
    /// The partition asked for is not in the table.
    #[error("the disk has no such partition")]
    NoPartition,
    /// The table says nothing that makes sense.
    #[error("the partition table is damaged")]
    PartitionTable,
    /// The file system contradicts itself.
    #[error("the file system is damaged")]
    Damaged,
    /// A block of the disk is larger than the file system can handle, or a limit of the reader is
    /// met.
    #[error("the file system exceeds what can be read")]
    Unsupported,
    /// The disk failed or was removed.
    #[error("the disk cannot be read")]
    Disk,
}

impl<E> From<Error<E>> for VolumeError {
    fn from(error: Error<E>) -> Self {
        match error.kind() {
            ErrorKind::Io => Self::Disk,
            ErrorKind::NotRecognized => Self::NoFileSystem,
            ErrorKind::Unsupported | ErrorKind::LimitExceeded => Self::Unsupported,
            _ => Self::Damaged,
        }
    }
}
