//! The lock and the counter between a driver and its task. In tests under loom they are loom's, which
//! tries every order in which threads can come to them.

#[cfg(not(all(test, loom)))]
pub(super) use core::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(all(test, loom)))]
pub(super) use spin::Mutex;

#[cfg(all(test, loom))]
pub(super) use self::explored::Mutex;
#[cfg(all(test, loom))]
pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};

#[cfg(all(test, loom))]
mod explored {
    use loom::sync::{self, MutexGuard};

    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no holder panics")
        }
    }
}
