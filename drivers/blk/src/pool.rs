//! A small store of what requests need for a while and what takes an allocation to make.

use alloc::vec::Vec;
use core::fmt;
use core::hint::spin_loop;
use core::mem;

use atomic_refcell::AtomicRefCell;

/// Keeps values for the next request. More than it keeps can be out at once; the surplus is freed.
/// Nobody waits: while another processor has borrowed the store, it looks empty, or full.
pub(super) struct Pool<T> {
    capacity: usize,
    pub(super) free: AtomicRefCell<Vec<T>>,
}

impl<T> Pool<T> {
    /// An empty pool that will keep `capacity` values.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            free: AtomicRefCell::new(Vec::with_capacity(capacity)),
        }
    }

    /// The value that was kept last.
    #[inline]
    pub(super) fn take(&self) -> Option<T> {
        self.free.try_borrow_mut().ok()?.pop()
    }

    /// Keeps a value, or frees it if there are enough.
    #[inline]
    pub(super) fn keep(&self, value: T) {
        if let Ok(mut free) = self.free.try_borrow_mut()
            && free.len() < self.capacity
        {
            free.push(value);
        }
    }

    /// Frees the values that are here.
    pub(super) fn clear(&self) {
        let free = loop {
            if let Ok(mut free) = self.free.try_borrow_mut() {
                break mem::take(&mut *free);
            }
            spin_loop();
        };
        drop(free);
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
