//! Small stores of DMA buffers that come back by themselves, whoever drops them last.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};

use spin::Mutex;
use virtq::{DmaAllocator, DmaBuffer, DmaError};

/// Buffers of one size. More than the pool keeps can be out at once; the surplus is freed.
pub(super) struct Pool {
    allocator: Arc<dyn DmaAllocator>,
    size: usize,
    /// How many buffers are kept.
    capacity: usize,
    free: Mutex<Vec<DmaBuffer>>,
}

impl Pool {
    /// A pool that allocates its buffers when they are first needed.
    pub(super) fn new(allocator: Arc<dyn DmaAllocator>, capacity: usize, size: usize) -> Arc<Self> {
        let free = Mutex::new(Vec::with_capacity(capacity));
        Arc::new(Self {
            allocator,
            size,
            capacity,
            free,
        })
    }

    /// A pool that is full from the beginning: one allocation for all.
    pub(super) fn filled(
        allocator: Arc<dyn DmaAllocator>,
        capacity: usize,
        size: usize,
    ) -> Result<Arc<Self>, DmaError> {
        let free = Mutex::new(DmaBuffer::pool(&allocator, capacity, size)?);
        Ok(Arc::new(Self {
            allocator,
            size,
            capacity,
            free,
        }))
    }

    /// Lends a buffer. What was in it still is.
    pub(super) fn take(self: &Arc<Self>) -> Result<Loan, DmaError> {
        let kept = self.free.lock().pop();
        let buffer = match kept {
            Some(buffer) => buffer,
            None => DmaBuffer::new(&self.allocator, self.size)?,
        };
        Ok(Loan {
            buffer: Some(buffer),
            home: Some(Arc::clone(self)),
        })
    }

    /// Frees the buffers that are here.
    pub(super) fn clear(&self) {
        let free = mem::take(&mut *self.free.lock());
        drop(free);
    }

    fn give_back(&self, buffer: DmaBuffer) {
        let mut free = self.free.lock();
        if free.len() < self.capacity {
            free.push(buffer);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// A buffer that goes back to its pool, if it has one, when it is dropped.
#[derive(Debug)]
pub(super) struct Loan {
    buffer: Option<DmaBuffer>,
    home: Option<Arc<Pool>>,
}

impl Loan {
    /// A buffer of somebody else's.
    pub(super) fn of(buffer: DmaBuffer) -> Self {
        Self {
            buffer: Some(buffer),
            home: None,
        }
    }

    /// Takes the buffer for good.
    pub(super) fn into_buffer(mut self) -> DmaBuffer {
        self.buffer
            .take()
            .expect("a loan holds its buffer until it ends")
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let (Some(buffer), Some(home)) = (self.buffer.take(), &self.home) {
            home.give_back(buffer);
        }
    }
}

impl Deref for Loan {
    type Target = DmaBuffer;

    fn deref(&self) -> &DmaBuffer {
        self.buffer
            .as_ref()
            .expect("a loan holds its buffer until it ends")
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut DmaBuffer {
        self.buffer
            .as_mut()
            .expect("a loan holds its buffer until it ends")
    }
}
