//! A small store of what requests need for a while and is dear to make anew.

use alloc::vec::Vec;
use core::fmt;
use core::mem;

use spin::Mutex;

/// Keeps values for whoever needs one next. More than it keeps can be out at once; the surplus is freed.
pub(super) struct Pool<T> {
    capacity: usize,
    free: Mutex<Vec<T>>,
}

impl<T> Pool<T> {
    /// An empty pool that will keep `capacity` values.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            free: Mutex::new(Vec::with_capacity(capacity)),
        }
    }

    /// The value that was kept last.
    pub(super) fn take(&self) -> Option<T> {
        self.free.lock().pop()
    }

    /// Keeps a value, or frees it if there are enough.
    pub(super) fn keep(&self, value: T) {
        let mut free = self.free.lock();
        if free.len() < self.capacity {
            free.push(value);
        }
    }

    /// Frees the values that are here.
    pub(super) fn clear(&self) {
        let free = mem::take(&mut *self.free.lock());
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
