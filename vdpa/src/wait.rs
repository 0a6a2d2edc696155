//! Waiting for a change of state that is guarded by a short lock, and taking turns.
//!
//! The bus never holds a lock across an await. A waiter looks at the state under its lock,
//! leaves, and looks again when somebody says that it has changed.

use alloc::vec::Vec;
use core::future::poll_fn;
use core::mem;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Poll, Waker};

use spin::Mutex;

/// The tasks that wait for some state to change.
#[derive(Debug, Default)]
pub struct Waiters(Mutex<Vec<Waker>>);

impl Waiters {
    /// Asks `ready` now and after every change, until it answers.
    pub async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| {
            if let Some(answer) = ready() {
                return Poll::Ready(answer);
            }
            let mut wakers = self.0.lock();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            drop(wakers);
            // The state may have changed between the first look and the registration.
            ready().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Lets every waiter look again. Called after the change, with no lock held.
    pub fn wake(&self) {
        for waker in mem::take(&mut *self.0.lock()) {
            waker.wake();
        }
    }
}

/// Lets one task at a time through a sequence of awaits.
#[derive(Debug, Default)]
pub struct AsyncMutex {
    taken: AtomicBool,
    waiters: Waiters,
}

impl AsyncMutex {
    /// Waits for the turn, which lasts until the returned value is dropped.
    pub async fn lock(&self) -> impl Sized + '_ {
        self.waiters
            .until(|| (!self.taken.swap(true, Ordering::Acquire)).then(|| AsyncMutexGuard(self)))
            .await
    }
}

/// Proof that it is the holder's turn.
#[derive(Debug)]
struct AsyncMutexGuard<'a>(&'a AsyncMutex);

impl Drop for AsyncMutexGuard<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
        self.0.waiters.wake();
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use core::task::Context;

    use super::*;

    #[test]
    fn a_turn_that_is_asked_for_in_vain_stays_with_its_holder() {
        let turn = AsyncMutex::default();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(turn.lock()).poll(&mut cx) else {
            panic!("nobody has it");
        };
        let mut second = pin!(turn.lock());
        let mut third = pin!(turn.lock());
        for _ in 0..3 {
            assert!(second.as_mut().poll(&mut cx).is_pending());
            assert!(third.as_mut().poll(&mut cx).is_pending());
        }
        drop(first);
        let Poll::Ready(second) = second.as_mut().poll(&mut cx) else {
            panic!("it has been given back");
        };
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(third.as_mut().poll(&mut cx).is_ready());
    }
}
