//! A disk in memory that counts how often it is read.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::task::{Context, Poll};

use hadris_io::{Error, ErrorKind, ErrorType};
use hadris_storage::async_::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};

/// The disk. Its clones are handles of the same one.
#[derive(Clone)]
pub struct Device {
    pub image: Rc<RefCell<Vec<u8>>>,
    reads: Rc<Cell<u32>>,
    block: u32,
}

impl Device {
    pub fn new(image: Vec<u8>, block: u32) -> Self {
        Self {
            image: Rc::new(RefCell::new(image)),
            reads: Rc::default(),
            block,
        }
    }

    /// The bytes of a block.
    pub fn block(&self) -> usize {
        self.block.try_into().unwrap()
    }

    /// How often it was read since this was asked last.
    pub fn take_reads(&self) -> u32 {
        self.reads.take()
    }
}

impl ErrorType for Device {
    type Error = Infallible;
}

impl BlockDevice for Device {
    type State = ();

    fn block_size(&self) -> BlockSize {
        BlockSize::new(self.block).unwrap()
    }

    fn block_count(&self) -> u64 {
        self.image.borrow().len() as u64 / u64::from(self.block)
    }

    fn poll_read_blocks(
        &mut self,
        (): &mut (),
        _: &mut Context<'_>,
        first: BlockIndex,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Error<Infallible>>> {
        self.reads.set(self.reads.get() + 1);
        let image = self.image.borrow();
        let start = first.get().saturating_mul(u64::from(self.block));
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let bytes = image.get(start..start.saturating_add(buffer.len()));
        Poll::Ready(match bytes {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::InvalidInput, "outside the disk")),
        })
    }

    fn cancel(&mut self, (): &mut ()) {}
}
