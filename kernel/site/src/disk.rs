//! The disk as the file system's block device.
//!
//! The file system polls with a buffer of its own, which it may take back at any time. So each read
//! goes into a buffer that the disk owns meanwhile, and is copied when it is complete.

use alloc::boxed::Box;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use hadris_io::{Error, ErrorType};
use hadris_storage::async_::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use virtio_blk::{BlkError, Disk};
use virtq::DmaBuffer;
use web::pieces::SECTOR;

/// A disk, for reading.
#[derive(Clone)]
pub(crate) struct DiskDevice {
    disk: Disk,
    block_size: BlockSize,
}

type ReadFuture = dyn Future<Output = Result<DmaBuffer, BlkError>>;

/// A read that is under way.
#[derive(Default)]
pub(crate) struct PendingRead {
    future: Option<Pin<Box<ReadFuture>>>,
}

impl DiskDevice {
    /// `None`, if the disk's blocks are larger than any file system's.
    pub(crate) fn new(disk: Disk) -> Option<Self> {
        let block_size = u32::try_from(disk.block_size())
            .ok()
            .and_then(BlockSize::new)?;
        Some(Self { disk, block_size })
    }

    fn sectors_per_block(&self) -> u64 {
        u64::from(self.block_size.get()) / SECTOR
    }
}

impl ErrorType for DiskDevice {
    type Error = BlkError;
}

impl BlockDevice for DiskDevice {
    type State = PendingRead;

    fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn block_count(&self) -> u64 {
        self.disk.capacity() / self.sectors_per_block()
    }

    fn poll_read_blocks(
        &mut self,
        state: &mut PendingRead,
        cx: &mut Context<'_>,
        first: BlockIndex,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Error<BlkError>>> {
        let read = state.future.get_or_insert_with(|| {
            let (disk, length) = (self.disk.clone(), buffer.len());
            let sector = first.get().saturating_mul(self.sectors_per_block());
            Box::pin(async move { disk.read(sector, disk.buffer(length)?).await })
        });
        let done = ready!(read.as_mut().poll(cx));
        state.future = None;
        Poll::Ready(match done {
            Ok(bytes) => {
                buffer.copy_from_slice(&bytes);
                Ok(())
            }
            Err(error) => Err(Error::device(error, "the disk cannot be read")),
        })
    }

    fn cancel(&mut self, state: &mut PendingRead) {
        state.future = None;
    }
}

impl fmt::Debug for DiskDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskDevice({})", self.disk.name())
    }
}
